import CPoold
import Logging
import PoolConfig
import PoolCore
import PoolProtocol

extension Shell {
    /// Whether a caller may call a pool; remembered on its connection.
    mutating func allow(_ index: Int, _ pool: Int) -> Bool {
        guard access.mayCall(connections[index].access, pools[pool].configuration) else { return false }
        connections[index].allowedPool = UInt16(pool)
        return true
    }

    /// After another configuration: what connections remember of it is forgotten.
    mutating func forgetAccess() {
        for index in 0..<usedConnections { connections[index].allowedPool = .max }
        welcomeBodies.removeAll()
    }

    /// Whether the peer of a control connection may have this done; a refusal is logged.
    mutating func mayDo(_ index: Int, _ operation: Poold_V1_Operation) -> Bool {
        let allowed: Bool
        switch operation {
        case .status, .version, .stats, .calls, .sessions, .postMortem, .quarantine, .events, .configuration, .warmProgress, .unspecified, .UNRECOGNIZED:
            allowed = access.mayLook(connections[index].access)
        case .scale, .recycle, .kill, .drain, .resume, .clearQuarantine, .cancel, .stack, .reload, .warm:
            allowed = access.mayOperate(connections[index].access)
        }
        if !allowed && faultLog.allows(now) {
            log.warning("operation refused: its user has no such role", metadata: peer(index).merging(["operation": "\(operation)"]) { $1 })
        }
        return allowed
    }

    /// Who is at the other end, for the log.
    func peer(_ index: Int) -> Logger.Metadata {
        var (user, group, pid): (UInt32, UInt32, Int32) = (0, 0, 0)
        guard cpoold_peer(connections[index].descriptor, &user, &group, &pid) == 0 else { return [:] }
        return ["uid": "\(user)", "client_pid": "\(pid)"]
    }
}
