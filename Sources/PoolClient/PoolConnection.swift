import CPoold
import Glibc
package import PoolWire

/// How a call is to be made.
public struct CallOptions: Sendable {
    public enum Priority: UInt8, Sendable {
        case normal = 0
        case high = 1
        case low = 2
    }
    /// For waiting and running together; nil: the pool's default.
    public var budget: Duration?
    public var priority = Priority.normal
    /// 0: none.
    public var session: UInt64 = 0
    /// May run again if its worker is lost.
    public var idempotent = false
    public init() {}
}

/// A blocking connection to poold for one thread: one call at a time. `poolctl` uses it, and so may any program
/// that has a thread to wait with.
public final class PoolConnection {
    let descriptor: Int32
    package let path: String
    /// How long poold may keep us waiting for its next bytes, or leave ours unread; nil: for ever (what is sent keeps the limit that it had).
    package var answerLimit: Duration? {
        didSet { if let answerLimit { _ = cpoold_limit_sending(descriptor, Self.nanoseconds(answerLimit)) } }
    }
    var exchange = Exchange.greeting
    /// poold has the whole request, so it may do what the request says.
    var isSent = false
    private var decoder = FrameDecoder(limit: 1 << 20)
    private var nextID: UInt64 = 1
    /// In bytes, either way.
    package private(set) var largestBody = 1 << 26
    /// What may be called, as WELCOME told, by `pool.method`.
    package private(set) var methods: [String: MethodEntry] = [:]

    /// Connects to poold's socket. Errors: `connection` or `permission_denied`, with what to do.
    public convenience init(path: String) throws(PoolError) {
        try self.init(path: path, greets: true)
    }

    package init(path: String, greets: Bool, answerLimit: Duration? = nil) throws(PoolError) {
        self.answerLimit = answerLimit
        let descriptor = cpoold_connect_within(path, answerLimit.map(Self.nanoseconds) ?? 0)
        guard descriptor >= 0 else {
            let error = errno
            let reason: String
            switch error {
            case _ where path.isEmpty: reason = "an empty path names nothing; \(Self.rename)"
            case ENOENT: reason = "there is no such socket; is poold running?"
            case ECONNREFUSED:
                reason = Self.stranger(path).map { "\($0) is there, no socket; \(Self.rename)" } ?? "nobody listens there: poold has died; start it again"
            case ENOTDIR: reason = "a part of that path is no folder; \(Self.rename)"
            case EACCES, EPERM:
                throw PoolError(status: "permission_denied", message: "no permission to use \(path)\(Self.owner(path)); run as its owner or join its group")
            case EAGAIN: reason = "it did not take the connection\(Self.within(answerLimit)); it is overloaded or stopped (see its log), or wait longer"
            case ENAMETOOLONG: reason = "a socket's path may have 107 bytes"
            default: reason = String(cString: strerror(error))
            }
            throw .connection("cannot reach poold at \(path): \(reason)")
        }
        self.descriptor = descriptor
        self.path = path
        guard greets else {
            decoder.limit = largestBody
            return
        }
        try send(Header(.hello), Hello(name: "poolctl").encoded, .greeting)
        let frame = try receive()
        guard frame.header.type == FrameType.welcome.rawValue else { throw Self.error(frame) }
        let welcome: Welcome
        do throws(WireFault) {
            welcome = try Self.welcome(frame.body)
        } catch {
            throw .connection("poold at \(path) sent a malformed WELCOME: \(error.text)")
        }
        largestBody = Int(welcome.largestBody)
        decoder.limit = largestBody
        for method in welcome.methods { methods[method.name] = method }
    }

    private static let rename = "give the path of the socket on which poold listens"

    /// What is there instead of a socket.
    private static func stranger(_ path: String) -> String? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        switch status.st_mode & S_IFMT {
        case S_IFSOCK: return nil
        case S_IFDIR: return "a folder"
        case S_IFREG: return "a file"
        default: return "a device or pipe"
        }
    }

    /// Whose a socket is, for a message.
    private static func owner(_ path: String) -> String {
        var status = stat()
        guard stat(path, &status) == 0 else { return " or the folder that it is in" }
        return " (user \(status.st_uid), group \(status.st_gid), mode \(String(status.st_mode & 0o777, radix: 8)))"
    }

    private static func welcome(_ body: [UInt8]) throws(WireFault) -> Welcome {
        let result = body.withUnsafeBytes { bytes -> Result<Welcome, WireFault> in
            do throws(WireFault) { return .success(try Welcome(reading: bytes)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    deinit { close(descriptor) }

    /// Calls `pool.method` with a body in its codec; returns the result's bytes and the nanoseconds that it ran.
    ///
    /// Errors: any status of PROTOCOL.md, section 6, `worker_lost` also if poold goes away and `timeout` if it does not answer (the call may
    /// have run); `connection` if it was gone before it had the call, or did not take all of it.
    public func call(_ method: String, body: [UInt8], options: CallOptions = CallOptions()) throws(PoolError) -> (body: [UInt8], ranNanoseconds: UInt64) {
        guard method.utf8.count <= 255 else { throw PoolError(status: "bad_arguments", message: "a method's name may have 255 bytes") }
        let id = nextID
        nextID += 1
        var flags = FrameFlags.end | FrameFlags.named | options.priority.rawValue << FrameFlags.priorityShift
        if options.idempotent { flags |= FrameFlags.idempotent }
        var budget: UInt64 = 0
        if let wanted = options.budget {
            let (seconds, attoseconds) = wanted.components
            budget = UInt64(max(1, seconds * 1_000_000_000 + attoseconds / 1_000_000_000))
        }
        var whole: [UInt8] = []
        whole.appendShortString(method)
        whole.append(contentsOf: body)
        // The limit is one of frames, and the name is part of the frame. Above it poold would close the connection.
        guard whole.count <= largestBody else {
            throw PoolError(
                status: "frame_too_large",
                message: "the body has \(body.count) bytes and \(whole.count - body.count) more for the method's name; poold takes \(largestBody) together "
                    + "(limits.max_body)")
        }
        try send(Header(.call, flags: flags, id: id, session: options.session, time: budget), whole, .call)
        while true {
            let frame = try receive()
            guard frame.header.id == id else {
                if frame.header.type == FrameType.error.rawValue && frame.header.id == 0 { throw Self.error(frame) }
                continue
            }
            if frame.header.type == FrameType.result.rawValue { return (frame.body, frame.header.time) }
            throw Self.error(frame)
        }
    }

    /// One round trip to poold itself, in nanoseconds.
    public func ping() throws(PoolError) -> UInt64 {
        let began = cpoold_now()
        try send(Header(.ping, id: nextID, time: began), [], .question)
        while true {
            let frame = try receive()
            if frame.header.type == FrameType.pong.rawValue { return cpoold_now() - began }
        }
    }

    /// An operation of the control socket. `changes`: it does more than look, so that what is lost of it may have been done.
    package func control(_ operation: UInt16, _ body: [UInt8], changes: Bool = false) throws(PoolError) -> [UInt8] {
        let id = nextID
        nextID += 1
        try send(Header(.control, code: operation, id: id), body, changes ? .change : .question)
        while true {
            let frame = try receive()
            if frame.header.type == FrameType.error.rawValue { throw Self.error(frame) }
            if frame.header.type == FrameType.control.rawValue && frame.header.id == id { return frame.body }
            guard frame.header.type == FrameType.pong.rawValue || frame.header.type == FrameType.control.rawValue else {
                throw strange("what answers at \(path) is not poold's control socket: it sent frame type \(frame.header.type)")
            }
        }
    }

    private static func error(_ frame: FrameDecoder.Frame) -> PoolError {
        let text = String(decoding: frame.body, as: UTF8.self)
        let parts = text.split(separator: "\n", maxSplits: 1, omittingEmptySubsequences: false)
        let status = Status(rawValue: frame.header.code)
        return PoolError(
            status: status?.name ?? "status \(frame.header.code)", message: parts.first.map(String.init) ?? "", detail: parts.count > 1 ? String(parts[1]) : "",
            retryAfterNanoseconds: status == .overloaded || status == .poolUnavailable ? frame.header.time : 0)
    }

    private func send(_ header: Header, _ body: [UInt8], _ exchange: Exchange) throws(PoolError) {
        self.exchange = exchange
        isSent = false
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Header.size + body.count)
        bytes.appendFrame(header, body: body)
        var at = 0
        while at < bytes.count {
            let written = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress! + at, bytes.count - at, Int32(MSG_NOSIGNAL)) }
            if written < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN { throw unread(at, of: bytes.count) }
                // poold may have said why before it closed.
                return
            }
            at += written
        }
        isSent = true
    }

    private func receive() throws(PoolError) -> FrameDecoder.Frame {
        while true {
            do throws(WireFault) { if let frame = try decoder.next() { return frame } } catch {
                throw strange("what answers at \(path) does not speak poold's protocol: \(error.text); is it another program's socket?")
            }
            try awaitBytes()
            let count = withUnsafeTemporaryAllocation(byteCount: 65_536, alignment: 16) { buffer in
                let count = read(descriptor, buffer.baseAddress!, buffer.count)
                if count > 0 { decoder.append(UnsafeRawBufferPointer(rebasing: buffer[0..<count])) }
                return count
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw closed() }
        }
    }

    /// Waits until there is something to read, as long as `answerLimit` allows.
    private func awaitBytes() throws(PoolError) {
        guard let answerLimit else { return }
        let end = cpoold_now() + Self.nanoseconds(answerLimit)
        while true {
            let now = cpoold_now()
            guard now < end else { throw late() }
            var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let ready = poll(&wait, 1, Int32(clamping: (end - now + 999_999) / 1_000_000))
            if ready > 0 || (ready < 0 && errno != EINTR) { return }
        }
    }

    private static func nanoseconds(_ limit: Duration) -> UInt64 {
        let (seconds, attoseconds) = limit.components
        return UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }

    static func within(_ limit: Duration?) -> String { limit.map { " within \($0)" } ?? "" }
}
