import CPoold
import Glibc
import Histogram
import PoolWire

/// What load to make.
struct Load {
    var socket: String
    var method = "bench.handle"
    /// Speak to the floor, which knows no HELLO: CALL with code 1.
    var isFloor = false
    var connections = 1
    /// Calls in flight on each connection (closed loop).
    var depth = 1
    /// Calls a second, whatever the server does; 0: closed loop.
    var rate = 0.0
    var payload = 100
    /// The payload's first byte: it picks the work of bench_worker.py.
    var fill = UInt8(ascii: "e")
    var seconds = 2.0
    var warmup = 0.5
    /// Where the measured window begins, by the monotonic clock in ns; 0: when the connections stand and `warmup` is over.
    var begin: UInt64 = 0
    /// The window is counted in slices of so many ns as well; 0: in one.
    var slice: UInt64 = 0
    /// Budget of each call in ns; 0: the pool's default.
    var budget: UInt64 = 0
}

/// What came of it. Times in microseconds.
struct LoadResult {
    var seconds = 0.0
    var results: UInt64 = 0
    /// Results by slice, of a load that has slices.
    var slices: [UInt32] = []
    /// By status name; `unanswered` for what never came.
    var errors: [String: UInt64] = [:]
    var latency = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    /// From the intended start to a refusal (`overloaded`).
    var refusal = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    /// Waits that refusals predicted.
    var predicted = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    /// Latency less the run time: what accepted calls really waited.
    var waited = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    var serverPID: Int32 = 0
    /// CPU seconds of the server's process during the measured window.
    var serverCPU = 0.0
    var serverResidentKiB = 0
    var perSecond: Double { seconds > 0 ? Double(results) / seconds : 0 }
    var errorCount: UInt64 { errors.values.reduce(0, +) }
    var serverMicrosecondsPerCall: Double { results > 0 ? serverCPU * 1e6 / Double(results) : 0 }
}

struct LoadError: Error, CustomStringConvertible { var description: String }

/// Makes load with one thread and raw epoll; bounded in time by its own clock. Open-loop latency counts from the intended start, so a
/// server that stalls cannot hide it.
final class LoadGenerator {
    private struct Connection {
        var descriptor: Int32 = -1
        var isReady = false
        var left: [UInt8] = []
        var unsent: [UInt8] = []
        var number: UInt16 = 1
    }

    private let load: Load
    private let epoll: Int32
    private var connections: [Connection]
    private var template: [UInt8]
    /// Intended start of each call by id; 0: answered.
    private var due: [UInt64]
    private var result = LoadResult()
    private let scratch = UnsafeMutableRawPointer.allocate(byteCount: 1 << 18, alignment: 64)
    private var begin: UInt64 = 0
    private var end: UInt64 = 0
    private var ready = 0

    init(_ load: Load) {
        self.load = load
        _ = cpoold_raise_descriptor_limit()
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        connections = Array(repeating: Connection(), count: load.connections)
        let planned = load.rate > 0 ? Int(load.rate * (load.seconds + load.warmup)) + 1 : load.connections * load.depth
        due = Array(repeating: 0, count: planned)
        template = []
        var body = (0..<load.payload).map { UInt8(truncatingIfNeeded: ($0 * 131) >> 3) }
        if load.payload > 0 { body[0] = load.fill }
        template.appendFrame(Header(.call, flags: FrameFlags.end, code: 1, time: load.budget), body: body)
    }

    deinit {
        scratch.deallocate()
        for connection in connections where connection.descriptor >= 0 { close(connection.descriptor) }
        close(epoll)
    }

    func run() throws -> LoadResult {
        try connect()
        let start = cpoold_now()
        begin = load.begin > 0 ? load.begin : start + UInt64(load.warmup * 1e9)
        end = begin + UInt64(load.seconds * 1e9)
        guard begin >= start else { throw LoadError(description: "the load was not ready when its window began") }
        if load.slice > 0 { result.slices = Array(repeating: 0, count: Int((end - begin) / load.slice) + 1) }
        var cpuBefore = 0.0
        var isMeasuring = false
        if load.rate == 0 {
            for index in connections.indices { for slot in 0..<load.depth { issue(index, index * load.depth + slot, cpoold_now()) } }
        }
        var next = 0
        // Answers may come a little after the window.
        let giveUp = end + 3_000_000_000
        while true {
            let now = cpoold_now()
            if !isMeasuring && now >= begin {
                isMeasuring = true
                cpuBefore = Self.cpuSeconds(result.serverPID)
            }
            if now >= end {
                if result.seconds == 0 {
                    result.seconds = Double(now - begin) / 1e9
                    result.serverCPU = Self.cpuSeconds(result.serverPID) - cpuBefore
                    result.serverResidentKiB = Self.residentKiB(result.serverPID)
                }
                if load.rate == 0 || now >= giveUp || outstanding == 0 { break }
            }
            var wake = now >= end ? giveUp : end
            if load.rate > 0 && now < end {
                while next < due.count, start + UInt64(Double(next) * 1e9 / load.rate) <= now {
                    issue(next % connections.count, next, start + UInt64(Double(next) * 1e9 / load.rate))
                    next += 1
                }
                if next < due.count { wake = min(wake, start + UInt64(Double(next) * 1e9 / load.rate)) }
            }
            if !isMeasuring { wake = min(wake, begin) }
            poll(Int64(wake > now ? wake - now : 0))
        }
        for time in due where time >= begin && time < end && load.rate > 0 {
            result.errors["unanswered", default: 0] += 1
            result.latency.record((end - min(time, end)) / 1000 + 3_000_000)
        }
        return result
    }

    private var outstanding: Int { due.reduce(0) { $0 + ($1 > 0 ? 1 : 0) } }

    private func connect() throws {
        for index in connections.indices {
            var descriptor: Int32 = -1
            for _ in 0..<20_000 {
                descriptor = cpoold_connect(load.socket, false)
                if descriptor >= 0 || errno != EAGAIN { break }
                usleep(500)
            }
            guard descriptor >= 0 else { throw LoadError(description: "cannot connect to \(load.socket): \(String(cString: strerror(errno)))") }
            connections[index].descriptor = descriptor
            _ = cpoold_epoll_control(epoll, EPOLL_CTL_ADD, descriptor, EPOLLIN.rawValue, UInt64(index))
            if load.isFloor {
                connections[index].isReady = true
                ready += 1
            } else {
                var hello: [UInt8] = []
                hello.appendFrame(Header(.hello), body: Hello(name: "poolbench").encoded)
                write(index, hello)
            }
        }
        var uid: UInt32 = 0
        var gid: UInt32 = 0
        _ = cpoold_peer(connections[0].descriptor, &uid, &gid, &result.serverPID)
        let limit = cpoold_now() + 30_000_000_000
        while ready < connections.count {
            guard cpoold_now() < limit else { throw LoadError(description: "only \(ready) of \(connections.count) connections were welcomed within 30 s") }
            poll(100_000_000)
        }
    }

    // MARK: - One call

    private func issue(_ index: Int, _ call: Int, _ time: UInt64) {
        due[call] = time
        let id = UInt64(call + 1)
        template.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(of: connections[index].number.bigEndian, toByteOffset: 6, as: UInt16.self)
            bytes.storeBytes(of: id.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        write(index, template)
    }

    private func write(_ index: Int, _ bytes: [UInt8]) {
        guard connections[index].descriptor >= 0 else { return }
        guard connections[index].unsent.isEmpty else {
            connections[index].unsent.append(contentsOf: bytes)
            return
        }
        let written = bytes.withUnsafeBytes { send(connections[index].descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        guard written < bytes.count else { return }
        connections[index].unsent = Array(bytes[max(0, written)...])
        _ = cpoold_epoll_control(epoll, EPOLL_CTL_MOD, connections[index].descriptor, EPOLLIN.rawValue | EPOLLOUT.rawValue, UInt64(index))
    }

    private func writeRest(_ index: Int) {
        let rest = connections[index].unsent
        let written = rest.withUnsafeBytes { send(connections[index].descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        if written > 0 { connections[index].unsent.removeFirst(written) }
        if connections[index].unsent.isEmpty { _ = cpoold_epoll_control(epoll, EPOLL_CTL_MOD, connections[index].descriptor, EPOLLIN.rawValue, UInt64(index)) }
    }

    private func poll(_ timeout: Int64) {
        withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 512) { events in
            let count = cpoold_epoll_wait(epoll, events.baseAddress, 512, timeout)
            guard count > 0 else { return }
            for at in 0..<Int(count) {
                let index = Int(cpoold_epoll_data(events.baseAddress! + at))
                if events[at].events & EPOLLOUT.rawValue != 0 { writeRest(index) }
                if events[at].events & (EPOLLIN.rawValue | EPOLLHUP.rawValue) != 0 { receive(index) }
            }
        }
    }

    private func receive(_ index: Int) {
        guard connections[index].descriptor >= 0 else { return }
        let count = read(connections[index].descriptor, scratch, 1 << 18)
        guard count > 0 else {
            if count < 0 && errno == EAGAIN { return }
            close(connections[index].descriptor)
            connections[index].descriptor = -1
            result.errors["connection_closed", default: 0] += 1
            return
        }
        let now = cpoold_now()
        if connections[index].left.isEmpty {
            let used = take(index, UnsafeRawPointer(scratch), count, now)
            if used < count { connections[index].left = Array(UnsafeRawBufferPointer(start: scratch + used, count: count - used)) }
        } else {
            var all = connections[index].left
            all.append(contentsOf: UnsafeRawBufferPointer(start: scratch, count: count))
            let used = all.withUnsafeBytes { take(index, $0.baseAddress!, $0.count, now) }
            connections[index].left = Array(all[used...])
        }
    }

    private func take(_ index: Int, _ bytes: UnsafeRawPointer, _ count: Int, _ now: UInt64) -> Int {
        var at = 0
        while at < count {
            guard case .frame(let header) = FrameScanner.next(bytes + at, count: count - at, limit: 1 << 30) else { return at }
            let body = UnsafeRawBufferPointer(start: bytes + at + Header.size, count: header.bodyLength)
            at += header.frameLength
            switch FrameType(rawValue: header.type) {
            case .result, .error: answered(index, header, body, now)
            case .welcome:
                if let welcome = try? Welcome(reading: body), let method = welcome.methods.first(where: { $0.name == load.method }) {
                    connections[index].number = method.number
                    connections[index].isReady = true
                    ready += 1
                }
            default: continue
            }
        }
        return at
    }

    private func answered(_ index: Int, _ header: Header, _ body: UnsafeRawBufferPointer, _ now: UInt64) {
        let call = Int(header.id) - 1
        guard call >= 0, call < due.count, due[call] > 0 else {
            result.errors["unasked", default: 0] += 1
            return
        }
        let time = due[call]
        due[call] = 0
        let latency = now > time ? now - time : 0
        if header.type == FrameType.result.rawValue {
            if now >= begin && now < end {
                result.results += 1
                if load.slice > 0 { result.slices[Int((now - begin) / load.slice)] += 1 }
            }
            if time >= begin && time < end {
                result.latency.record(latency / 1000)
                result.waited.record((latency > header.time ? latency - header.time : 0) / 1000)
            }
            if body.count != load.payload { result.errors["wrong_body", default: 0] += 1 }
        } else if time >= begin && time < end {
            let status = Status(rawValue: header.code)
            result.errors[status?.name ?? "status \(header.code)", default: 0] += 1
            if status == .overloaded {
                result.refusal.record(latency / 1000)
                let text = String(decoding: body, as: UTF8.self)
                if let range = text.firstRange(of: "predicted wait is "),
                    let value = Double(text[range.upperBound...].prefix(while: { $0.isNumber || $0 == "." }))
                {
                    result.predicted.record(UInt64(value * 1000))
                }
            }
        }
        if load.rate == 0 && now < end { issue(index, call, now) }
    }

    // MARK: - The server's process

    static func cpuSeconds(_ pid: Int32) -> Double {
        let text = contents("/proc/\(pid)/stat")
        guard let close = text.lastIndex(of: ")") else { return 0 }
        let fields = text[text.index(after: close)...].split(separator: " ")
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return 0 }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    static func residentKiB(_ pid: Int32) -> Int {
        for line in contents("/proc/\(pid)/status").split(separator: "\n") where line.hasPrefix("VmRSS:") {
            return Int(line.split(whereSeparator: { $0 == " " || $0 == "\t" })[1]) ?? 0
        }
        return 0
    }

    private static func contents(_ path: String) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 8192)
        let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        return String(decoding: buffer[0..<max(0, count)], as: UTF8.self)
    }
}
