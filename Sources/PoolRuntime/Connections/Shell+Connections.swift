import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

extension Shell {
    // MARK: - Places in the slab

    /// `nil`: the role's limit is reached. `isOwn`: poold's own caller, which callers must not shut out.
    mutating func addConnection(_ descriptor: Int32, _ role: Role, isOwn: Bool = false) -> Int? {
        switch role {
        case .client where clientCount >= clientLimit && !isOwn: return nil
        case .control where controlCount >= Self.maximumControlConnections: return nil
        case .free, .client, .control, .worker: break
        }
        let index: Int
        if let free = freeConnections.popLast() {
            index = Int(free)
        } else {
            guard usedConnections < connectionCapacity else { return nil }
            index = usedConnections
            usedConnections += 1
        }
        let generation = connections[index].generation &+ 1
        connections[index] = Connection(
            descriptor: descriptor, generation: generation, role: role, isDirty: connections[index].isDirty, interest: EPOLLIN.rawValue)
        if role == .client { clientCount += 1 }
        if role == .control { controlCount += 1 }
        watch(descriptor, .connection, index: index, generation: generation)
        return index
    }

    mutating func closeConnection(_ index: Int) {
        guard connections[index].role != .free else { return }
        let role = connections[index].role
        close(connections[index].descriptor)
        connections[index].role = .free
        if role == .client {
            clientCount -= 1
            access.leave(connections[index].access)
        }
        if role == .control {
            controlCount -= 1
            access.leave(connections[index].access)
            if controlReserve < 0 { controlReserve = cpoold_open_null() }
        }
        connections[index].stall = .no
        blocks.release(connections[index].input)
        connections[index].input = Block()
        connections[index].inputCount = 0
        discardOutput(index)
        // Nobody waits for its calls any more.
        while connections[index].firstCall != .none {
            let reference = connections[index].firstCall
            let context = pools[reference.pool].contexts + reference.index
            unlinkCall(context)
            context.pointee.connection = -1
            handle(reference.pool, .callAbandoned(context.pointee.call))
        }
        freeConnections.append(Int32(index))
        if role == .worker {
            let (pool, slot) = (Int(connections[index].pool), Int(connections[index].slot))
            if pools[pool].workers[slot].connection == index { pools[pool].workers[slot].connection = -1 }
        }
    }

    // MARK: - Accepting

    /// Accepts at most this many in a turn, so that a flood of callers does not hold up those that are here.
    private static let acceptsPerTurn = 1024

    mutating func acceptAll(_ listener: Int32, _ role: Role) {
        for _ in 0..<Self.acceptsPerTurn {
            var descriptor = cpoold_accept(listener)
            if descriptor < 0 {
                guard errno == EMFILE || errno == ENFILE else { return }
                guard role == .control && controlReserve >= 0 else { return refuseForWantOfDescriptors(listener) }
                // An operator gets in even then.
                close(controlReserve)
                controlReserve = -1
                descriptor = cpoold_accept(listener)
                guard descriptor >= 0 else { return }
            }
            // Who cannot be known is nobody.
            var uid = UInt32.max
            var gid = UInt32.max
            var pid: Int32 = 0
            _ = cpoold_peer(descriptor, &uid, &gid, &pid)
            let (peer, isNew) = access.enter(access.credentials(of: descriptor, user: uid, group: gid))
            if isNew { welcomeBodies[peer] = nil }
            let limit = role == .client ? clientLimit : controlLimit(peer)
            guard role == .client || controlCount < limit, let index = addConnection(descriptor, role) else {
                close(descriptor)
                access.leave(peer)
                if faultLog.allows(now) { log.warning("connection refused: the limit is reached", metadata: ["limit": "\(limit)", "uid": "\(uid)"]) }
                continue
            }
            connections[index].identity = identity(of: uid)
            connections[index].access = peer
        }
    }

    /// Everybody may connect to the control socket, so strangers must not fill it, nor those who only look keep out who operates.
    private func controlLimit(_ peer: UInt16) -> Int {
        if access.mayOperate(peer) { return Self.maximumControlConnections }
        return access.mayLook(peer) ? Self.maximumControlConnections * 3 / 4 : Self.maximumControlConnections / 4
    }

    /// Without this the listen queue stays readable and the loop spins.
    private mutating func refuseForWantOfDescriptors(_ listener: Int32) {
        close(reserve)
        let descriptor = accept(listener, nil, nil)
        if descriptor >= 0 { close(descriptor) }
        reserve = cpoold_open_null()
        if faultLog.allows(now) { log.warning("connection refused: no file descriptors are left", metadata: ["hint": "raise LimitNOFILE"]) }
    }

    private mutating func identity(of uid: UInt32) -> UInt16 {
        if let known = identities[uid] { return known }
        // The last one is shared by all that come when the table is full.
        guard identities.count < PoolPolicy.maximumIdentities - 1 else { return UInt16(PoolPolicy.maximumIdentities - 1) }
        let next = UInt16(identities.count)
        identities[uid] = next
        return next
    }

    // MARK: - What epoll watches

    /// A caller that holds too much, or reads too little, is not read.
    mutating func setInterest(_ index: Int) {
        let connection = connections + index
        let isFull = isOverfull(index)
        connection.pointee.paused = isFull || connection.pointee.closing
        if !isFull && connection.pointee.stall == .waiting {
            connection.pointee.stall = .due
            due.append(Int32(index))
        }
        // What was read already comes before what is still in the socket.
        let reads = !connection.pointee.paused && connection.pointee.stall == .no
        let mask = (reads ? EPOLLIN.rawValue : 0) | (connection.pointee.wantsOutput ? EPOLLOUT.rawValue : 0)
        guard mask != connection.pointee.interest else { return }
        connection.pointee.interest = mask
        _ = cpoold_epoll_control(
            epoll, EPOLL_CTL_MOD, connection.pointee.descriptor, mask,
            TokenKind.connection.token(index: index, generation: connection.pointee.generation))
    }

    @inline(__always) func isOverfull(_ index: Int) -> Bool {
        let connection = connections + index
        return connection.pointee.role != .worker
            && (connection.pointee.heldBytes > configuration.heldBytesPerConnection || connection.pointee.unwritten > configuration.unreadBytesPerConnection)
    }
}

/// How many lines of the log callers may cause.
struct LogAllowance {
    static let perSecond: UInt64 = 20
    private var second: UInt64 = 0
    private var used: UInt64 = 0

    mutating func allows(_ now: UInt64) -> Bool {
        if now / 1_000_000_000 != second {
            second = now / 1_000_000_000
            used = 0
        }
        used += 1
        return used <= Self.perSecond
    }
}
