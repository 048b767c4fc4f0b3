import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

extension Shell {
    /// Largest body before WELCOME (PROTOCOL.md, section 1), bytes.
    static let largestBodyUngreeted = 1 << 20
    /// A caller whose frames cost more than this in one turn, cancelling what is not there or naming what does not exist, waits
    /// for the next one: some 200 µs.
    static let maximumExtraWork = 65_536

    /// One read; level triggering brings us back if there is more.
    mutating func readable(_ index: Int) {
        let count = readOnce(index)
        if count <= 0 { ended(index, count) }
    }

    /// Bytes read and taken; 0: end of file, negative: errno is set.
    mutating func readOnce(_ index: Int) -> Int {
        if connections[index].inputCount > 0 { return readBehind(index) }
        let count = recv(connections[index].descriptor, scratch, Self.scratchBytes, 0)
        guard count > 0 else { return count }
        noteTimeOfArrival(index)
        let generation = connections[index].generation
        let used = consume(index, UnsafeRawPointer(scratch), count)
        guard used < count, connections[index].role != .free, connections[index].generation == generation else { return count }
        keep(index, UnsafeRawPointer(scratch) + used, count - used)
        return count
    }

    /// What one frame may have after its header on this connection, bytes.
    @inline(__always) private func bodyLimit(_ index: Int) -> Int {
        let connection = connections + index
        return connection.pointee.greeted || connection.pointee.role == .worker ? configuration.largestBody : Self.largestBodyUngreeted
    }

    /// Keeps the beginning of a frame in a block that the whole frame fits in, or frames that have to wait.
    private mutating func keep(_ index: Int, _ bytes: UnsafeRawPointer, _ count: Int) {
        guard let block = blocks.allocateLarge(max(wholeFrame(bytes, count), count)) else { return refuseForWantOfMemory(index) }
        memcpy(block.pointer!, bytes, count)
        connections[index].input = block
        connections[index].inputCount = count
    }

    /// Length of the frame that begins here; of a header until the scanner has seen all of it and judged its length.
    private func wholeFrame(_ bytes: UnsafeRawPointer, _ count: Int) -> Int {
        count >= Header.size ? Int(UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))) + 4 : Header.size
    }

    private mutating func readBehind(_ index: Int) -> Int {
        var block = connections[index].input
        let have = connections[index].inputCount
        let whole = wholeFrame(UnsafeRawPointer(block.pointer!), have)
        if whole > block.capacity {
            guard let larger = blocks.allocateLarge(whole) else {
                refuseForWantOfMemory(index)
                return have
            }
            memcpy(larger.pointer!, block.pointer!, have)
            blocks.release(block)
            block = larger
            connections[index].input = block
        }
        let count = recv(connections[index].descriptor, block.pointer! + have, block.capacity - have, 0)
        guard count > 0 else { return count }
        noteTimeOfArrival(index)
        connections[index].input = Block()
        connections[index].inputCount = 0
        consumeBlock(index, block, have + count)
        return count
    }

    /// Takes the frames of a block; keeps what is left, and gives the block away if it is one large frame.
    private mutating func consumeBlock(_ index: Int, _ block: Block, _ count: Int) {
        let generation = connections[index].generation
        let isOneLargeFrame = count > CallContext.largeBody && wholeFrame(UnsafeRawPointer(block.pointer!), count) == count
        if isOneLargeFrame { handover = block }
        let used = consume(index, UnsafeRawPointer(block.pointer!), count)
        if isOneLargeFrame {
            if handover.pointer == nil { return }
            handover = Block()
        }
        guard used < count, connections[index].role != .free, connections[index].generation == generation else {
            blocks.release(block)
            return
        }
        if used == 0 {
            connections[index].input = block
            connections[index].inputCount = count
        } else {
            keep(index, UnsafeRawPointer(block.pointer!) + used, count - used)
            blocks.release(block)
        }
    }

    private mutating func ended(_ index: Int, _ count: Int) {
        if count < 0 && (errno == EAGAIN || errno == EINTR) { return }
        if connections[index].role == .worker {
            workerEnded(index)
        } else {
            closeConnection(index)
        }
    }

    /// Takes every whole frame; returns the bytes used. The connection may be gone afterwards, or be stalled before the end.
    mutating func consume(_ index: Int, _ bytes: UnsafeRawPointer, _ count: Int) -> Int {
        let generation = connections[index].generation
        let role = connections[index].role
        var limit = bodyLimit(index)
        var at = 0
        extraWork = 0
        while at < count {
            switch FrameScanner.next(bytes + at, count: count - at, limit: limit) {
            case .needMore:
                return at
            case .fault(let fault):
                faulted(index, fault)
                return count
            case .frame(let header):
                let body = UnsafeRawBufferPointer(start: bytes + at + Header.size, count: header.bodyLength)
                at += header.frameLength
                switch role {
                case .worker:
                    workerFrame(index, header, body)
                    if connections[index].role == .free || connections[index].generation != generation { return count }
                    continue
                case .client: clientFrame(index, header, body)
                case .control: controlFrame(index, header, body)
                case .free: return count
                }
                if connections[index].role == .free || connections[index].generation != generation || connections[index].closing { return count }
                limit = bodyLimit(index)
                // Before all else: who does not read its answers gets no more of them, however few a turn.
                if isOverfull(index) {
                    if at < count { connections[index].stall = .waiting }
                    setInterest(index)
                    return at
                }
                if extraWork > Self.maximumExtraWork && at < count {
                    // The others first; it is taken up in the next turn.
                    connections[index].stall = .due
                    due.append(Int32(index))
                    setInterest(index)
                    return at
                }
            }
        }
        return at
    }

    /// Takes up the frames of connections that have room again.
    mutating func takeUpStalled() {
        guard !due.isEmpty else { return }
        let now = due
        due.removeAll(keepingCapacity: true)
        for entry in now {
            let index = Int(entry)
            guard connections[index].role != .free, connections[index].stall == .due else { continue }
            connections[index].stall = .no
            let (block, count) = (connections[index].input, connections[index].inputCount)
            connections[index].input = Block()
            connections[index].inputCount = 0
            let generation = connections[index].generation
            if count > 0 { consumeBlock(index, block, count) }
            if connections[index].role != .free && connections[index].generation == generation && connections[index].stall == .no { setInterest(index) }
        }
    }

    // MARK: - Faults

    private mutating func faulted(_ index: Int, _ fault: WireFault) {
        if connections[index].role == .worker {
            workerBroke(index, fault.text)
        } else {
            var status = Status.badFrame
            var text = fault.text
            if case .tooLarge = fault {
                status = .frameTooLarge
                if connections[index].role == .client && !connections[index].greeted { text += "; after HELLO it is \(configuration.largestBody)" }
            }
            refuseConnection(index, status, text)
        }
    }

    private mutating func refuseForWantOfMemory(_ index: Int) {
        if connections[index].role == .worker {
            workerBroke(index, "there is no memory for its frame")
        } else {
            refuseConnection(index, .quotaExceeded, "poold has no memory for this frame; try again later or send less")
        }
    }

    /// Tells a client what was wrong with its connection and closes it once that is written.
    mutating func refuseConnection(_ index: Int, _ status: Status, _ text: String) {
        if faultLog.allows(now) { log.info("connection closed for a fault", metadata: ["status": "\(status.name)", "fault": "\(text)"]) }
        appendError(index, id: 0, status, time: 0, text)
        connections[index].closing = true
        setInterest(index)
    }
}
