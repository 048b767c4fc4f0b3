import CPoold
import Glibc
import PoolWire

/// Clients that break the protocol, or keep it and are a nuisance. What they call is in the pool `wild`, whose counts nobody compares.
extension ChaosOperator {
    func beHostile(_ kind: FaultKind, _ random: inout ChaosRandom) {
        switch kind {
        case .garbage: garbage(configuration.socket, &random)
        case .controlGarbage: garbage(configuration.control, &random)
        case .truncatedFrame:
            withConnection { descriptor, _ in
                var frame = call("wild.work", id: 1, bytes: 2_000)
                frame.removeLast(1 + random.below(frame.count - 1))
                put(descriptor, frame)
            }
        case .hugeLength: hugeLength()
        case .byteByByte: byteByByte()
        case .connectFlood: connectFlood(&random)
        case .neverReads: neverReads()
        case .unknownMethods: unknownMethods(&random)
        case .memoryDescriptor: memoryDescriptor()
        default: hangUp(&random)
        }
    }

    private func withConnection(_ body: (Int32, UnsafeMutableRawBufferPointer) -> Void) {
        let descriptor = connect(configuration.socket)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { body(descriptor, $0) }
    }

    /// Blocking, but no wait is longer than ten seconds, which only a very busy machine needs.
    private func connect(_ path: String) -> Int32 {
        let descriptor = cpoold_connect(path, true)
        guard descriptor >= 0 else { return -1 }
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] { setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size)) }
        return descriptor
    }

    @discardableResult private func put(_ descriptor: Int32, _ bytes: [UInt8]) -> Bool {
        var at = 0
        while at < bytes.count {
            let written = bytes.withUnsafeBytes { send(descriptor, $0.baseAddress! + at, bytes.count - at, Int32(MSG_NOSIGNAL)) }
            guard written > 0 else { return false }
            at += written
        }
        return true
    }

    /// Reads one frame's header and text; nil: the connection ended, or ten seconds went by.
    private func answer(_ descriptor: Int32) -> (header: Header, body: [UInt8])? {
        var decoder = FrameDecoder(limit: 1 << 20)
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            if let frame = try? decoder.next() { return (frame.header, frame.body) }
            let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress!, $0.count) }
            guard count > 0 else { return nil }
            decoder.append(buffer[0..<count])
        }
    }

    private func call(_ name: String, id: UInt64, bytes: Int, flags: UInt8 = 0, budget: UInt64 = 3_000_000_000) -> [UInt8] {
        var body: [UInt8] = []
        body.appendShortString(name)
        if bytes > 0 {
            let content = [UInt8](repeating: 120, count: bytes)
            body.append(contentsOf: [UInt8(ascii: "e"), 0, 0, 0, 0, 0, 0, 0])
            body.appendBigEndian(id)
            body.appendBigEndian(content.withUnsafeBytes { Checksum.of(UnsafeRawBufferPointer(rebasing: $0.prefix(4096))) })
            body.append(contentsOf: content)
        }
        var frame: [UInt8] = []
        frame.appendFrame(Header(.call, flags: FrameFlags.end | FrameFlags.named | flags, id: id, time: budget), body: body)
        return frame
    }

    private func garbage(_ path: String, _ random: inout ChaosRandom) {
        let descriptor = connect(path)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        for _ in 0..<(1 + random.below(8_000)) { bytes.append(UInt8(truncatingIfNeeded: random.next())) }
        put(descriptor, bytes)
    }

    private func hugeLength() {
        withConnection { descriptor, _ in
            put(descriptor, [0xff, 0xff, 0xff, 0xff] + [UInt8](repeating: 4, count: 28))
            guard let reply = answer(descriptor), reply.header.type == FrameType.error.rawValue, reply.header.code == Status.frameTooLarge.rawValue else {
                return board.violation("a frame of 4 GiB was not answered by frame_too_large")
            }
            if answer(descriptor) != nil { board.violation("a connection with a frame of 4 GiB was not closed") }
        }
    }

    private func byteByByte() {
        withConnection { descriptor, _ in
            for byte in call("wild.work", id: 7, bytes: 60) {
                guard put(descriptor, [byte]) else { return board.violation("a call that came byte by byte was cut off") }
                usleep(500)
            }
            // Any end will do: the pool is the one where everything happens.
            guard let reply = answer(descriptor) else { return }
            if reply.header.id != 7 { board.violation("a call that came byte by byte was answered as \(reply.header.id)") }
        }
    }

    private func connectFlood(_ random: inout ChaosRandom) {
        var descriptors: [Int32] = []
        for _ in 0..<200 {
            let descriptor = cpoold_connect(configuration.socket, false)
            if descriptor >= 0 { descriptors.append(descriptor) }
        }
        later(random.unit() * 2, .hangUp(descriptors: descriptors))
    }

    /// Asks for 16 MiB of replies and reads none of them.
    private func neverReads() {
        let descriptor = cpoold_connect(configuration.socket, false)
        guard descriptor >= 0 else { return }
        for id in 1...64 { put(descriptor, call("wild.work", id: UInt64(id), bytes: 256 << 10)) }
        later(3, .hangUp(descriptors: [descriptor]))
    }

    private func unknownMethods(_ random: inout ChaosRandom) {
        withConnection { descriptor, _ in
            let names = ["nothing.here", "wild.nothing", "wild", "", ".", "echo.work.work", "\u{fffd}"]
            for (id, name) in names.enumerated() {
                put(descriptor, call(name, id: UInt64(id + 1), bytes: random.below(100)))
                guard let reply = answer(descriptor), reply.header.type == FrameType.error.rawValue, let status = Status(rawValue: reply.header.code),
                    status == .noSuchPool || status == .noSuchMethod || status == .poolUnavailable
                else { return board.violation("a call of \(name.debugDescription) was not refused") }
            }
            var frame: [UInt8] = []
            frame.appendFrame(Header(.call, flags: FrameFlags.end, code: 65_000, id: 99))
            put(descriptor, frame)
            guard let reply = answer(descriptor), reply.header.code == Status.noSuchMethod.rawValue else {
                return board.violation("a call of a number that was never given was not answered by no_such_method")
            }
        }
    }

    /// A descriptor that nobody asked for, with a frame that lies about it, and with one that does not.
    private func memoryDescriptor() {
        for flags in [FrameFlags.memfd, 0] {
            withConnection { descriptor, _ in
                let memory = cpoold_memfd("chaos", 4096, false)
                guard memory >= 0 else { return }
                defer { close(memory) }
                let frame = call("wild.work", id: 5, bytes: 10, flags: flags)
                let descriptors = [memory]
                _ = frame.withUnsafeBytes { cpoold_send_descriptors(descriptor, $0.baseAddress!, $0.count, descriptors, 1) }
                _ = answer(descriptor)
            }
        }
    }

    private func hangUp(_ random: inout ChaosRandom) {
        withConnection { descriptor, _ in
            for id in 1...(1 + random.below(30)) { put(descriptor, call("wild.work", id: UInt64(id), bytes: random.below(60_000))) }
        }
    }
}
