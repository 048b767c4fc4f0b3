/// What is wrong with what a peer sent.
package enum WireFault: Error, Equatable, BitwiseCopyable, Sendable {
    /// `length` is below the 28 bytes of a header.
    case shortLength(UInt32)
    /// The body is longer than the connection's limit.
    case tooLarge(body: Int, limit: Int)
    case unknownType(UInt8)
    /// Flags that the type does not know.
    case badFlags(type: UInt8, flags: UInt8)
    case badPriority
    /// The body ends before `field` does, or goes on after its last.
    case badBody(type: FrameType, offset: Int)

    /// What, where and what is allowed, in one line.
    package var text: String {
        switch self {
        case .shortLength(let length): return "frame length \(length) is below 28, the rest of a header"
        case .tooLarge(let body, let limit): return "a body of \(body) bytes exceeds this connection's limit of \(limit)"
        case .unknownType(let type): return "frame type \(type) is unknown; version 1 has 1 to 14"
        case .badFlags(let type, let flags):
            return "flags 0x\(String(flags, radix: 16)) are not allowed on frame type \(type)"
        case .badPriority: return "priority 3 does not exist: 0 normal, 1 high, 2 low"
        case .badBody(let type, let offset): return "the body of \(type) is malformed at offset \(offset)"
        }
    }
}

package enum ScanResult: BitwiseCopyable, Equatable, Sendable {
    /// A whole frame begins where `next` was asked to look; its body lies 32 bytes further.
    case frame(Header)
    /// Not there yet. `total`: bytes of the whole frame, 0 while the header is incomplete.
    case needMore(total: Int)
    case fault(WireFault)
}

/// Finds frames in a buffer without copying. Holds no state and never traps, whatever the bytes are.
package enum FrameScanner {
    /// - Parameter limit: largest body allowed, in bytes.
    @inlinable package static func next(_ bytes: UnsafeRawPointer, count: Int, limit: Int) -> ScanResult {
        guard count >= Header.size else {
            // A length that can never be right is told as soon as it is seen.
            if count >= 4 {
                let length = UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))
                if length < Header.lengthOfEmptyBody { return .fault(.shortLength(length)) }
            }
            return .needMore(total: 0)
        }
        let header = Header(reading: bytes)
        guard header.length >= Header.lengthOfEmptyBody else { return .fault(.shortLength(header.length)) }
        guard header.bodyLength <= limit else { return .fault(.tooLarge(body: header.bodyLength, limit: limit)) }
        guard let type = FrameType(rawValue: header.type) else { return .fault(.unknownType(header.type)) }
        guard header.flags & ~type.allowedFlags == 0 else { return .fault(.badFlags(type: header.type, flags: header.flags)) }
        guard header.priority != 3 else { return .fault(.badPriority) }
        return count >= header.frameLength ? .frame(header) : .needMore(total: header.frameLength)
    }
}

/// Collects bytes until frames are whole: for clients and tests. Bounded by the limit on bodies.
package struct FrameDecoder {
    package struct Frame: Equatable, Sendable {
        package var header: Header
        package var body: [UInt8]
    }

    private var buffer: [UInt8] = []
    private var start = 0
    package var limit: Int
    package private(set) var fault: WireFault?

    package init(limit: Int) { self.limit = limit }

    package mutating func append(_ bytes: some Sequence<UInt8>) { Array(bytes).withUnsafeBytes { append($0) } }

    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        if start > 65_536 && start * 2 > buffer.count {
            buffer.removeFirst(start)
            start = 0
        }
        buffer.append(contentsOf: bytes)
    }

    /// The next whole frame; `nil`: more bytes are needed. After a fault nothing can be decoded any more.
    package mutating func next() throws(WireFault) -> Frame? {
        if let fault { throw fault }
        let result = buffer.withUnsafeBytes { bytes in
            bytes.count == start
                ? ScanResult.needMore(total: 0)
                : FrameScanner.next(bytes.baseAddress! + start, count: bytes.count - start, limit: limit)
        }
        switch result {
        case .needMore: return nil
        case .fault(let fault):
            self.fault = fault
            throw fault
        case .frame(let header):
            let body = Array(buffer[(start + Header.size)..<(start + header.frameLength)])
            start += header.frameLength
            if start == buffer.count {
                buffer.removeAll(keepingCapacity: true)
                start = 0
            }
            return Frame(header: header, body: body)
        }
    }
}
