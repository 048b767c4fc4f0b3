import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

/// Who owns a large body that is to be written.
enum BodyOwner {
    /// Somebody else, and not for long: what cannot be written at once is copied.
    case nobody
    /// The socket's queue takes the block over.
    case queue(Block)
    /// A call keeps the block; the queue holds it too until it is written.
    case call(Block)
}

extension Shell {
    /// Most pieces of one write.
    private static let piecesPerWrite = 16

    /// Room for `count` bytes at the end of the output.
    @inline(__always) mutating func reserve(_ index: Int, _ count: Int) -> UnsafeMutableRawPointer {
        let connection = connections + index
        if !connection.pointee.isDirty { markDirty(index) }
        if connection.pointee.firstSegment != SegmentTable.none { return reserveBehind(index, count) }
        if connection.pointee.output.capacity - connection.pointee.outputEnd < count { growOutput(index, count) }
        let place = connection.pointee.output.pointer! + connection.pointee.outputEnd
        connection.pointee.outputEnd += count
        return place
    }

    /// Each connection is in the ring at most once, so it cannot overflow.
    @inline(__always) private mutating func markDirty(_ index: Int) {
        connections[index].isDirty = true
        dirty[dirtyTail & dirtyMask] = Int32(index)
        dirtyTail += 1
    }

    private mutating func growOutput(_ index: Int, _ count: Int) {
        let connection = connections + index
        let waiting = connection.pointee.outputEnd - connection.pointee.outputStart
        let old = connection.pointee.output
        let block = blocks.allocate(max(waiting + count, 2 * waiting))
        if waiting > 0 { memcpy(block.pointer!, old.pointer! + connection.pointee.outputStart, waiting) }
        blocks.release(old)
        connection.pointee.output = block
        connection.pointee.outputStart = 0
        connection.pointee.outputEnd = waiting
    }

    /// Behind a large body: in the last segment if it is of small frames and has room.
    private mutating func reserveBehind(_ index: Int, _ count: Int) -> UnsafeMutableRawPointer {
        let connection = connections + index
        let last = connection.pointee.lastSegment
        connection.pointee.segmentBytes += count
        if segments[last].kind == .frames && segments[last].block.capacity - segments[last].end >= count {
            var segment = segments[last]
            let place = segment.block.pointer! + segment.end
            segment.end += count
            segments[last] = segment
            return place
        }
        let block = blocks.allocate(max(count, 4096))
        appendSegment(index, Segment(block: block, start: 0, end: count, kind: .frames))
        return block.pointer!
    }

    private mutating func appendSegment(_ index: Int, _ segment: Segment) {
        let added = segments.add(segment)
        let connection = connections + index
        if connection.pointee.lastSegment == SegmentTable.none {
            connection.pointee.firstSegment = added
        } else {
            var last = segments[connection.pointee.lastSegment]
            last.next = added
            segments[connection.pointee.lastSegment] = last
        }
        connection.pointee.lastSegment = added
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

    // MARK: - Large bodies

    /// Writes a large frame at once if nothing waits before it; what the socket does not take is queued, without copying if it has an owner.
    mutating func appendLarge(_ index: Int, _ header: Header, _ body: UnsafeRawBufferPointer, _ owner: BodyOwner) {
        let connection = connections + index
        var written = 0
        if connection.pointee.unwritten == 0 {
            written = max(0, writeNow(connection.pointee.descriptor, header, body))
            if written == Header.size + body.count { return finishBody(owner) }
        }
        if written < Header.size {
            withUnsafeTemporaryAllocation(byteCount: Header.size, alignment: 8) { bytes in
                header.write(to: bytes.baseAddress!)
                memcpy(reserve(index, Header.size - written), bytes.baseAddress! + written, Header.size - written)
            }
            written = Header.size
        } else if !connection.pointee.isDirty {
            markDirty(index)
        }
        let rest = UnsafeRawBufferPointer(rebasing: body[(written - Header.size)...])
        switch owner {
        case .nobody:
            guard let block = blocks.allocateLarge(rest.count) else { return failForWantOfMemory(index) }
            memcpy(block.pointer!, rest.baseAddress!, rest.count)
            appendSegment(index, Segment(block: block, start: 0, end: rest.count, kind: .owned))
        case .queue(let block), .call(let block):
            var kind = Segment.Kind.owned
            if case .call = owner {
                blocks.share(block)
                kind = .shared
            }
            let start = rest.baseAddress! - UnsafeRawPointer(block.pointer!)
            appendSegment(index, Segment(block: block, start: start, end: start + rest.count, kind: kind))
        }
        connection.pointee.segmentBytes += rest.count
    }

    private func writeNow(_ descriptor: Int32, _ header: Header, _ body: UnsafeRawBufferPointer) -> Int {
        withUnsafeTemporaryAllocation(byteCount: Header.size, alignment: 8) { bytes in
            header.write(to: bytes.baseAddress!)
            return withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { pieces in
                pieces[0] = iovec(iov_base: bytes.baseAddress, iov_len: Header.size)
                pieces[1] = iovec(iov_base: UnsafeMutableRawPointer(mutating: body.baseAddress), iov_len: body.count)
                return writev(descriptor, pieces.baseAddress!, 2)
            }
        }
    }

    private mutating func finishBody(_ owner: BodyOwner) {
        switch owner {
        case .nobody, .call: return
        case .queue(let block): blocks.release(block)
        }
    }

    /// A frame is cut in two: nothing after it could be understood.
    private mutating func failForWantOfMemory(_ index: Int) {
        if connections[index].role == .worker {
            workerBroke(index, "there is no memory for what it is to be sent")
        } else {
            log.error("connection closed: no memory for a reply")
            closeConnection(index)
        }
    }

    // MARK: - Flushing

    /// One write for each connection that has something to say.
    mutating func flushDirty() {
        while dirtyHead != dirtyTail {
            let index = Int(dirty[dirtyHead & dirtyMask])
            dirtyHead += 1
            connections[index].isDirty = false
            // Who was full is told by epoll when it is not.
            if connections[index].role != .free && !connections[index].wantsOutput { flush(index) }
        }
    }

    /// Writes what waits; what does not fit waits for the socket.
    mutating func flush(_ index: Int) {
        let connection = connections + index
        while connection.pointee.unwritten > 0 {
            let written: Int
            if connection.pointee.firstSegment == SegmentTable.none {
                written = send(
                    connection.pointee.descriptor, connection.pointee.output.pointer! + connection.pointee.outputStart,
                    connection.pointee.outputEnd - connection.pointee.outputStart, Int32(MSG_NOSIGNAL))
            } else {
                written = writePieces(index)
            }
            if written < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN {
                    connection.pointee.wantsOutput = true
                    setInterest(index)
                    return
                }
                // Reading will report a worker's end.
                if connection.pointee.role == .worker { return discardOutput(index) }
                closeConnection(index)
                return
            }
            advance(index, written)
        }
        blocks.release(connection.pointee.output)
        connection.pointee.output = Block()
        connection.pointee.outputStart = 0
        connection.pointee.outputEnd = 0
        if connection.pointee.closing { return closeConnection(index) }
        if connection.pointee.wantsOutput || connection.pointee.paused {
            connection.pointee.wantsOutput = false
            setInterest(index)
        }
    }

    private func writePieces(_ index: Int) -> Int {
        let connection = connections + index
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: Self.piecesPerWrite) { pieces in
            var count = 0
            if connection.pointee.outputEnd > connection.pointee.outputStart {
                pieces[0] = iovec(
                    iov_base: connection.pointee.output.pointer! + connection.pointee.outputStart,
                    iov_len: connection.pointee.outputEnd - connection.pointee.outputStart)
                count = 1
            }
            var next = connection.pointee.firstSegment
            while next != SegmentTable.none && count < Self.piecesPerWrite {
                let segment = segments[next]
                pieces[count] = iovec(iov_base: segment.block.pointer! + segment.start, iov_len: segment.end - segment.start)
                count += 1
                next = segment.next
            }
            return writev(connection.pointee.descriptor, pieces.baseAddress!, Int32(count))
        }
    }

    @inline(__always) private mutating func advance(_ index: Int, _ written: Int) {
        let connection = connections + index
        let fromOutput = min(written, connection.pointee.outputEnd - connection.pointee.outputStart)
        connection.pointee.outputStart += fromOutput
        if written > fromOutput { advanceSegments(index, written - fromOutput) }
    }

    private mutating func advanceSegments(_ index: Int, _ written: Int) {
        let connection = connections + index
        connection.pointee.segmentBytes -= written
        var rest = written
        while rest > 0 {
            let first = connection.pointee.firstSegment
            var segment = segments[first]
            let part = min(rest, segment.end - segment.start)
            rest -= part
            segment.start += part
            segments[first] = segment
            guard segment.start == segment.end else { return }
            dropFirstSegment(index)
        }
    }

    private mutating func dropFirstSegment(_ index: Int) {
        let first = connections[index].firstSegment
        let segment = segments[first]
        connections[index].firstSegment = segment.next
        if segment.next == SegmentTable.none { connections[index].lastSegment = SegmentTable.none }
        switch segment.kind {
        case .frames, .owned: blocks.release(segment.block)
        case .shared: blocks.releaseShared(segment.block)
        }
        segments.remove(first)
    }

    /// Forgets what was to be written.
    mutating func discardOutput(_ index: Int) {
        while connections[index].firstSegment != SegmentTable.none { dropFirstSegment(index) }
        connections[index].segmentBytes = 0
        blocks.release(connections[index].output)
        connections[index].output = Block()
        connections[index].outputStart = 0
        connections[index].outputEnd = 0
    }
}
