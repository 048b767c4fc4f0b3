import CPoold
import Glibc
import PoolConfig

/// What a peer may do; decided from SO_PEERCRED and SO_PEERGROUPS, for each class of peers with the same credentials once.
struct AccessTable {
    /// Classes of peers. When all are taken, a newcomer gets one that no connection is of any more; while there is none, it shares
    /// the last, which may do what everybody may.
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
    /// Connections of each class.
    private var uses: [Int] = [0, 0]
    private var credentials: [Credentials]
    private var roles: Roles
    private let ownUser = getuid()

    init(_ configuration: Configuration) {
        roles = configuration.roles
        credentials = [Credentials(user: getuid(), groups: []), Credentials(user: 0, groups: [])]
    }

    /// Other roles; the classes stay.
    mutating func configure(_ configuration: Configuration) { roles = configuration.roles }

    /// Who is at the other end of a socket.
    func credentials(of descriptor: Int32, user: UInt32, group: UInt32) -> Credentials {
        if user == 0 || user == ownUser { return Credentials(user: user, groups: []) }
        var groups: [UInt32] = [group]
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 1024) { buffer in
            let count = cpoold_peer_groups(descriptor, buffer.baseAddress!, Int32(buffer.count))
            for index in 0..<Int(max(0, count)) { groups.append(buffer[index]) }
        }
        groups.sort()
        return Credentials(user: user, groups: groups)
    }

    /// For one connection more, until `leave`. `isNew`: what is remembered of this number is of other peers.
    mutating func enter(_ peer: Credentials) -> (number: UInt16, isNew: Bool) {
        if peer.user == 0 || peer.user == ownUser { return (Self.masterClass, false) }
        if let known = classes[peer] {
            uses[Int(known)] += 1
            return (known, false)
        }
        if credentials.count == Self.maximumClasses - 1 {
            credentials.append(Credentials(user: .max, groups: []))
            uses.append(0)
        }
        let number: Int
        if credentials.count < Self.maximumClasses {
            number = credentials.count
            credentials.append(peer)
            uses.append(0)
        } else if let idle = uses.indices.dropFirst(2).dropLast().first(where: { uses[$0] == 0 }) {
            number = idle
            classes[credentials[idle]] = nil
            credentials[idle] = peer
        } else {
            return (UInt16(Self.maximumClasses - 1), false)
        }
        classes[peer] = UInt16(number)
        uses[number] = 1
        return (UInt16(number), true)
    }

    /// The connection is closed. Its class stays known as long as its number is not needed.
    mutating func leave(_ number: UInt16) {
        if uses[Int(number)] > 0 { uses[Int(number)] -= 1 }
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
