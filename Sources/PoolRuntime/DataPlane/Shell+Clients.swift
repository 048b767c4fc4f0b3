import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

extension Shell {
    /// One whole frame of a caller.
    @inline(__always) mutating func clientFrame(_ index: Int, _ header: Header, _ body: UnsafeRawBufferPointer) {
        if header.type == FrameType.call.rawValue {
            call(index, header, body)
        } else {
            otherClientFrame(index, header, body)
        }
        connections[index].hasSpoken = true
    }

    // MARK: - CALL

    private mutating func call(_ index: Int, _ header: Header, _ body: UnsafeRawBufferPointer) {
        guard header.flags & (FrameFlags.memfd | FrameFlags.end) == FrameFlags.end else {
            return refuseConnection(
                index, .badFrame,
                header.flags & FrameFlags.memfd != 0
                    ? "flag MEMFD needs the feature MEMFD, which was not agreed" : "a CALL without END needs the feature STREAM, which was not agreed")
        }
        guard header.id != 0 else { return refuseConnection(index, .badFrame, "a CALL needs an id other than 0") }
        var payload = body
        var number = header.code
        if header.flags & (FrameFlags.named | FrameFlags.meta) != 0 {
            let layout: CallLayout
            do { layout = try CallLayout(flags: header.flags, body: body) } catch { return refuseConnection(index, .badFrame, error.text) }
            if header.flags & FrameFlags.named != 0 {
                guard header.code == 0 else { return refuseConnection(index, .badFrame, "a NAMED CALL needs code 0, not \(header.code)") }
                let name = String(decoding: body[layout.name], as: UTF8.self)
                guard let known = methodNumbers[name] else { return refuseName(index, header, name) }
                number = known
            }
            if header.flags & FrameFlags.meta == 0 {
                payload = UnsafeRawBufferPointer(rebasing: body[layout.payload])
            } else if header.flags & FrameFlags.named != 0 {
                return callWithMeta(index, header, number, body, layout)
            }
        }
        admit(index, header, number, payload)
    }

    /// META and NAMED together: META moves over the name, so that the payload follows it as in any other call.
    private mutating func callWithMeta(_ index: Int, _ header: Header, _ number: UInt16, _ body: UnsafeRawBufferPointer, _ layout: CallLayout) {
        let start = layout.payload.lowerBound - layout.meta.count
        // The bytes are the loop's own: its scratch, or a block of this connection.
        let bytes = UnsafeMutableRawBufferPointer(mutating: body)
        memmove(bytes.baseAddress! + start, bytes.baseAddress!, layout.meta.count)
        admit(index, header, number, UnsafeRawBufferPointer(rebasing: body[start...]))
    }

    private mutating func admit(_ index: Int, _ header: Header, _ number: UInt16, _ payload: UnsafeRawBufferPointer) {
        guard number > 0, Int(number) <= methodCount else {
            return answer(
                index, header.id, .noSuchMethod,
                "method number \(number) was never given on this connection; numbers come in WELCOME and METHODS, or call by name")
        }
        let method = globalMethods[Int(number) - 1]
        let pool = Int(method.pool)
        guard !method.isWithdrawn else {
            return answer(index, header.id, .methodGone, "method number \(number) was withdrawn; see METHODS, or call by name")
        }
        // Looked up anew only where the connection called another pool before, or the configuration has changed.
        if !pools[pool].isOpen, connections[index].allowedPool != UInt16(pool), !allow(index, pool) { return refuseCaller(index, header.id, pool) }
        guard connections[index].callCount < Int32(configuration.callsPerConnection) else {
            return answer(
                index, header.id, .quotaExceeded,
                "\(configuration.callsPerConnection) calls are in flight on this connection, its limit; wait for answers or open another")
        }
        arrivalConnection = index
        arrivalHeader = header
        arrivalBody = payload
        arrivalMethod = method.method
        var hash: UInt64 = 0
        if pools[pool].machine.wantsBodyHash {
            hash = Self.hash(method: method.method, flags: header.flags, payload)
            arrivalHash = hash
        }
        let arrival = Arrival(
            identity: IdentityID(index: connections[index].identity), method: MethodID(index: method.method),
            priority: Priority(rawValue: header.priority) ?? .normal, idempotent: header.flags & FrameFlags.idempotent != 0,
            session: header.session, budget: header.time, bodyBytes: UInt32(payload.count), bodyHash: hash)
        handle(pool, .callArrived(arrival))
        arrivalConnection = -1
    }

    private mutating func refuseName(_ index: Int, _ header: Header, _ name: String) {
        extraWork += Self.workOfRefusal
        let dot = name.firstIndex(of: ".")
        let poolName = dot.map { String(name[..<$0]) } ?? name
        let caller = connections[index].access
        if let pool = pool(named: poolName), !pools[pool].configuration.isReserved || caller == AccessTable.ownClass {
            guard access.mayCall(caller, pools[pool].configuration) else { return refuseCaller(index, header.id, pool) }
            if pools[pool].methods.isEmpty {
                let reason =
                    pools[pool].failure.isEmpty ? "no worker of pool \(poolName) is ready yet" : "pool \(poolName) cannot start: \(pools[pool].failure)"
                return answer(index, header.id, .poolUnavailable, time: 1_000_000_000, reason)
            }
            extraWork += 16 * pools[pool].methods.count
            let known = Self.listed(pools[pool].methods.filter { $0.number != 0 }.map(\.name))
            return answer(
                index, header.id, .noSuchMethod,
                "pool \(poolName) has no method \(dot == nil ? "without a name" : String(name[name.index(after: dot!)...])); it has: \(known)")
        }
        refusePool(index, header.id, poolName)
    }

    private mutating func refusePool(_ index: Int, _ id: UInt64, _ name: String) {
        let caller = connections[index].access
        extraWork += 16 * poolCount
        var names: [String] = []
        for pool in 0..<poolCount where !pools[pool].isRemoved && access.mayCall(caller, pools[pool].configuration) {
            names.append(pools[pool].configuration.name)
        }
        answer(index, id, .noSuchPool, "there is no pool \(name); there are: \(Self.listed(names)). A method is named pool.method")
    }

    private mutating func refuseCaller(_ index: Int, _ id: UInt64, _ pool: Int) {
        let name = pools[pool].configuration.name
        // What callers cannot see does not exist for them.
        if pools[pool].configuration.isReserved { return refusePool(index, id, name) }
        if faultLog.allows(now) { log.warning("call refused: its user may not call the pool", metadata: peer(index).merging(["pool": "\(name)"]) { $1 }) }
        answer(index, id, .permissionDenied, "your user may not call pool \(name); `callers` of the pool in poold's configuration says who may")
    }

    /// A refusal with its text costs about so many steps of a list.
    static let workOfRefusal = 256

    /// Names for a message, not more than a reader wants.
    private static func listed(_ names: [String]) -> String {
        names.prefix(20).joined(separator: ", ") + (names.count > 20 ? " and \(names.count - 20) more" : "")
    }

    mutating func answer(_ index: Int, _ id: UInt64, _ status: Status, time: UInt64 = 0, _ text: String) {
        appendError(index, id: id, status, time: time, text)
    }

    // MARK: - The rest

    private mutating func otherClientFrame(_ index: Int, _ header: Header, _ body: UnsafeRawBufferPointer) {
        switch FrameType(rawValue: header.type) {
        case .hello: hello(index, body)
        case .cancel: cancel(index, header.id)
        case .ping:
            guard body.count <= 1024 else { return refuseConnection(index, .badFrame, "PING takes at most 1024 bytes, not \(body.count)") }
            appendFrame(index, Header(.pong, id: header.id, time: header.time), body)
        case .chunk, .window: refuseConnection(index, .badFrame, "CHUNK and WINDOW need the feature STREAM, which was not agreed")
        case .release: refuseConnection(index, .badFrame, "RELEASE needs the feature MEMFD, which was not agreed")
        case .control: refuseConnection(index, .badFrame, "CONTROL belongs on the control socket, \(configuration.controlPath)")
        case .call, .welcome, .methods, .result, .error, .pong, .drain, nil:
            refuseConnection(index, .badFrame, "a client does not send frame type \(header.type)")
        }
    }

    private mutating func hello(_ index: Int, _ body: UnsafeRawBufferPointer) {
        guard !connections[index].hasSpoken else { return refuseConnection(index, .badFrame, "HELLO must be the first frame") }
        let hello: Hello
        do { hello = try Hello(reading: body) } catch { return refuseConnection(index, .badFrame, error.text) }
        guard hello.lowestVersion <= 1, hello.highestVersion >= 1 else {
            return refuseConnection(index, .unsupportedVersion, "this poold speaks version 1, you \(hello.lowestVersion) to \(hello.highestVersion)")
        }
        connections[index].greeted = true
        welcomeBody(connections[index].access).withUnsafeBytes { appendFrame(index, Header(.welcome), $0) }
        if isStopping { appendFrame(index, Header(.drain)) }
    }

    private mutating func cancel(_ index: Int, _ id: UInt64) {
        var reference = connections[index].firstCall
        while reference != .none {
            extraWork += 1
            let context = pools[reference.pool].contexts + reference.index
            if context.pointee.clientID == id {
                handle(reference.pool, .callCancelled(context.pointee.call))
                return
            }
            reference = context.pointee.next
        }
    }
}
