import CPoold
import Glibc
import Logging
import PoolCore
import PoolWire

extension Shell {
    // MARK: - Places in the slab

    mutating func addConnection(_ descriptor: Int32, _ role: Role) -> Int? {
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
            descriptor: descriptor, generation: generation, role: role, hasSpoken: false, greeted: false, closing: false, wantsOutput: false,
            paused: false, isDirty: connections[index].isDirty, identity: 0, pool: 0, slot: 0, input: Block(), inputCount: 0, output: Block(), outputStart: 0,
            outputEnd: 0, firstCall: .none, callCount: 0, heldBytes: 0)
        connectionCount += 1
        watch(descriptor, .connection, index: index, generation: generation)
        return index
    }

    mutating func closeConnection(_ index: Int) {
        guard connections[index].role != .free else { return }
        let role = connections[index].role
        close(connections[index].descriptor)
        connections[index].role = .free
        blocks.release(connections[index].input)
        blocks.release(connections[index].output)
        connections[index].input = Block()
        connections[index].output = Block()
        // Nobody waits for its calls any more.
        while connections[index].firstCall != .none {
            let reference = connections[index].firstCall
            let context = pools[reference.pool].contexts + reference.index
            unlinkCall(context)
            context.pointee.connection = -1
            handle(reference.pool, .callAbandoned(context.pointee.call))
        }
        connectionCount -= 1
        freeConnections.append(Int32(index))
        if role == .worker {
            let (pool, slot) = (Int(connections[index].pool), Int(connections[index].slot))
            if pools[pool].workers[slot].connection == index { pools[pool].workers[slot].connection = -1 }
        }
    }

    // MARK: - Accepting

    mutating func acceptAll(_ listener: Int32, _ role: Role) {
        for _ in 0..<1024 {
            let descriptor = cpoold_accept(listener)
            if descriptor < 0 {
                if errno == EMFILE || errno == ENFILE { refuseForWantOfDescriptors(listener) }
                return
            }
            guard let index = addConnection(descriptor, role) else {
                close(descriptor)
                log.warning("connection refused: the limit is reached", metadata: ["limit": "\(connectionCapacity)"])
                continue
            }
            var uid: UInt32 = 0
            var gid: UInt32 = 0
            var pid: Int32 = 0
            _ = cpoold_peer(descriptor, &uid, &gid, &pid)
            connections[index].identity = identity(of: uid)
        }
    }

    /// Without this the listen queue stays readable and the loop spins.
    private mutating func refuseForWantOfDescriptors(_ listener: Int32) {
        close(reserve)
        let descriptor = accept(listener, nil, nil)
        if descriptor >= 0 { close(descriptor) }
        reserve = cpoold_open_null()
        log.warning("connection refused: no file descriptors are left", metadata: ["hint": "raise LimitNOFILE"])
    }

    private mutating func identity(of uid: UInt32) -> UInt16 {
        if let known = identities[uid] { return known }
        // The last one is shared by all that come after the table is full.
        let next = UInt16(min(identities.count, PoolPolicy.maximumIdentities - 1))
        identities[uid] = next
        return next
    }

    // MARK: - Reading

    /// One read; level triggering brings us back if there is more.
    mutating func readable(_ index: Int) {
        let count = readOnce(index)
        if count <= 0 { ended(index, count) }
    }

    /// Bytes read and taken; 0: end of file, negative: errno is set.
    mutating func readOnce(_ index: Int) -> Int {
        if connections[index].inputCount > 0 { return readBehind(index) }
        let count = read(connections[index].descriptor, scratch, Self.scratchBytes)
        guard count > 0 else { return count }
        let generation = connections[index].generation
        let used = consume(index, UnsafeRawPointer(scratch), count)
        guard used < count, connections[index].role != .free, connections[index].generation == generation else { return count }
        keep(index, UnsafeRawPointer(scratch) + used, count - used)
        return count
    }

    /// Keeps the beginning of a frame, in a block that its whole frame fits in.
    private mutating func keep(_ index: Int, _ bytes: UnsafeRawPointer, _ count: Int) {
        let block = blocks.allocate(max(wholeFrame(bytes, count), count))
        memcpy(block.pointer!, bytes, count)
        connections[index].input = block
        connections[index].inputCount = count
    }

    /// Length of the frame that begins here, or of a header while that is not known; bounded, since the scanner has passed it.
    private func wholeFrame(_ bytes: UnsafeRawPointer, _ count: Int) -> Int {
        count >= 4 ? Int(UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))) + 4 : Header.size
    }

    private mutating func readBehind(_ index: Int) -> Int {
        var block = connections[index].input
        let have = connections[index].inputCount
        let whole = wholeFrame(UnsafeRawPointer(block.pointer!), have)
        if whole > block.capacity {
            let larger = blocks.allocate(whole)
            memcpy(larger.pointer!, block.pointer!, have)
            blocks.release(block)
            block = larger
            connections[index].input = block
        }
        let count = read(connections[index].descriptor, block.pointer! + have, block.capacity - have)
        guard count > 0 else { return count }
        let total = have + count
        connections[index].inputCount = 0
        connections[index].input = Block()
        let generation = connections[index].generation
        let used = consume(index, UnsafeRawPointer(block.pointer!), total)
        guard used < total, connections[index].role != .free, connections[index].generation == generation else {
            blocks.release(block)
            return count
        }
        if used == 0 {
            connections[index].input = block
            connections[index].inputCount = total
        } else {
            keep(index, UnsafeRawPointer(block.pointer!) + used, total - used)
            blocks.release(block)
        }
        return count
    }

    private mutating func ended(_ index: Int, _ count: Int) {
        if count < 0 && (errno == EAGAIN || errno == EINTR) { return }
        if connections[index].role == .worker {
            workerEnded(index)
        } else {
            closeConnection(index)
        }
    }

    /// Takes every whole frame; returns the bytes used. The connection may be gone afterwards.
    mutating func consume(_ index: Int, _ bytes: UnsafeRawPointer, _ count: Int) -> Int {
        let generation = connections[index].generation
        let role = connections[index].role
        let limit = role == .client && !connections[index].hasSpoken ? max(configuration.largestBody, 1 << 20) : configuration.largestBody
        var at = 0
        while at < count {
            switch FrameScanner.next(bytes + at, count: count - at, limit: limit) {
            case .needMore:
                return at
            case .fault(let fault):
                faulted(index, fault)
                return count
            case .frame(let header):
                let body = UnsafeRawBufferPointer(start: bytes + at + Header.size, count: header.bodyLength)
                switch role {
                case .client: clientFrame(index, header, body)
                case .worker: workerFrame(index, header, body)
                case .control: controlFrame(index, header, body)
                case .free: return count
                }
                at += header.frameLength
                if connections[index].role == .free || connections[index].generation != generation || connections[index].closing { return count }
            }
        }
        return at
    }

    private mutating func faulted(_ index: Int, _ fault: WireFault) {
        if connections[index].role == .worker {
            workerBroke(index, fault.text)
        } else {
            var status = Status.badFrame
            if case .tooLarge = fault { status = .frameTooLarge }
            refuseConnection(index, status, fault.text)
        }
    }

    /// Tells a client what was wrong with its connection and closes it once that is written.
    mutating func refuseConnection(_ index: Int, _ status: Status, _ text: String) {
        log.info("connection closed for a fault", metadata: ["status": "\(status.name)", "fault": "\(text)"])
        appendError(index, id: 0, status, time: 0, text)
        connections[index].closing = true
        setInterest(index)
    }

    // MARK: - Writing

    /// Room for `count` bytes at the end of the output.
    @inline(__always) mutating func reserve(_ index: Int, _ count: Int) -> UnsafeMutableRawPointer {
        let connection = connections + index
        if connection.pointee.output.capacity - connection.pointee.outputEnd < count { growOutput(index, count) }
        let place = connection.pointee.output.pointer! + connection.pointee.outputEnd
        connection.pointee.outputEnd += count
        if !connection.pointee.isDirty {
            connection.pointee.isDirty = true
            dirty[dirtyCount] = Int32(index)
            dirtyCount += 1
        }
        return place
    }

    private mutating func growOutput(_ index: Int, _ count: Int) {
        let connection = connections + index
        let waiting = connection.pointee.outputEnd - connection.pointee.outputStart
        let old = connection.pointee.output
        let block = blocks.allocate(max(waiting + count, waiting == 0 ? 0 : 2 * waiting))
        if waiting > 0 { memcpy(block.pointer!, old.pointer! + connection.pointee.outputStart, waiting) }
        blocks.release(old)
        connection.pointee.output = block
        connection.pointee.outputStart = 0
        connection.pointee.outputEnd = waiting
    }

    mutating func appendFrame(_ index: Int, _ header: Header, _ body: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)) {
        var header = header
        header.length = Header.lengthOfEmptyBody &+ UInt32(body.count)
        let place = reserve(index, Header.size + body.count)
        header.write(to: place)
        if let base = body.baseAddress { memcpy(place + Header.size, base, body.count) }
    }

    mutating func appendError(_ index: Int, id: UInt64, _ status: Status, time: UInt64, _ text: String) {
        var text = text
        text.withUTF8 {
            appendFrame(index, Header(.error, flags: FrameFlags.end, code: status.rawValue, id: id, time: time), UnsafeRawBufferPointer($0))
        }
    }

    /// Writes what waits; what does not fit waits for the socket.
    mutating func flush(_ index: Int) {
        let connection = connections + index
        while connection.pointee.outputStart < connection.pointee.outputEnd {
            let waiting = connection.pointee.outputEnd - connection.pointee.outputStart
            let written = send(
                connection.pointee.descriptor, connection.pointee.output.pointer! + connection.pointee.outputStart, waiting, Int32(MSG_NOSIGNAL))
            if written < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN {
                    if !connection.pointee.wantsOutput {
                        connection.pointee.wantsOutput = true
                        setInterest(index)
                    } else if connection.pointee.role != .worker {
                        setInterest(index)
                    }
                    return
                }
                // Reading will report the end, unless it is paused.
                if connection.pointee.role == .worker { return discardOutput(index) }
                closeConnection(index)
                return
            }
            connection.pointee.outputStart += written
        }
        discardOutput(index)
        if connection.pointee.wantsOutput || connection.pointee.paused {
            connection.pointee.wantsOutput = false
            setInterest(index)
        }
        if connection.pointee.closing { closeConnection(index) }
    }

    private mutating func discardOutput(_ index: Int) {
        blocks.release(connections[index].output)
        connections[index].output = Block()
        connections[index].outputStart = 0
        connections[index].outputEnd = 0
    }

    /// What epoll watches: a caller that holds too much, or reads too little, is not read.
    mutating func setInterest(_ index: Int) {
        let connection = connections + index
        let unread = connection.pointee.outputEnd - connection.pointee.outputStart
        let full =
            connection.pointee.role == .client
            && (connection.pointee.heldBytes > configuration.heldBytesPerConnection || unread > configuration.unreadBytesPerConnection)
        connection.pointee.paused = full || connection.pointee.closing
        let mask = (connection.pointee.paused ? 0 : EPOLLIN.rawValue) | (connection.pointee.wantsOutput ? EPOLLOUT.rawValue : 0)
        _ = cpoold_epoll_control(
            epoll, EPOLL_CTL_MOD, connection.pointee.descriptor, mask,
            TokenKind.connection.token(index: index, generation: connection.pointee.generation))
    }
}
