import CPoold
import Glibc
import PoolConfig

/// What a peer may do; decided from SO_PEERCRED and SO_PEERGROUPS, for each class of peers with the same credentials once.
struct AccessTable {
    /// Classes of peers; who comes when all are taken shares the last, which may do what everybody may.
    static let maximumClasses = 4096
    /// poold's own connections: may call every pool, also the reserved ones.
    static let ownClass: UInt16 = 0
    /// root and poold's own user, whatever their groups: they have a class also when all others are taken.
    private static let masterClass: UInt16 = 1

    struct Credentials: Hashable {
        var user: UInt32
        var groups: [UInt32]
    }

    private var classes: [Credentials: UInt16] = [:]
    private var credentials: [Credentials]
    private var roles: Roles
    private let ownUser = getuid()

    init(_ configuration: Configuration) {
        roles = configuration.roles
        credentials = [Credentials(user: getuid(), groups: []), Credentials(user: 0, groups: [])]
    }

    /// Other roles; the classes stay.
    mutating func configure(_ configuration: Configuration) { roles = configuration.roles }

    /// The class of the peer of a socket.
    mutating func peerClass(_ descriptor: Int32, user: UInt32, group: UInt32) -> UInt16 {
        if user == 0 || user == ownUser { return Self.masterClass }
        var groups: [UInt32] = [group]
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 1024) { buffer in
            let count = cpoold_peer_groups(descriptor, buffer.baseAddress!, Int32(buffer.count))
            for index in 0..<Int(max(0, count)) { groups.append(buffer[index]) }
        }
        groups.sort()
        let key = Credentials(user: user, groups: groups)
        if let known = classes[key] { return known }
        let number = UInt16(credentials.count)
        guard credentials.count < Self.maximumClasses - 1 else {
            if credentials.count == Self.maximumClasses - 1 { credentials.append(Credentials(user: .max, groups: [])) }
            return UInt16(Self.maximumClasses - 1)
        }
        credentials.append(key)
        classes[key] = number
        return number
    }

    private func matches(_ principals: [Principal], _ peer: Credentials) -> Bool {
        for principal in principals {
            switch principal {
            case .everyone: return true
            case .user(let user): if peer.user == user { return true }
            case .group(let group): if peer.groups.contains(group) { return true }
            }
        }
        return false
    }

    func mayOperate(_ number: UInt16) -> Bool {
        let peer = credentials[Int(number)]
        return number == Self.ownClass || peer.user == 0 || peer.user == ownUser || matches(roles.operate, peer)
    }

    func mayLook(_ number: UInt16) -> Bool { mayOperate(number) || matches(roles.look, credentials[Int(number)]) }

    func mayCall(_ number: UInt16, _ pool: PoolConfiguration) -> Bool {
        if number == Self.ownClass { return true }
        if pool.isReserved { return false }
        return matches(pool.callers, credentials[Int(number)]) || mayOperate(number)
    }
}
