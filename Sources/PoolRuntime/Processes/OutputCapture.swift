import Glibc

/// Lines of one worker's stdout or stderr: cut, cleaned, limited in rate; the tail is kept for after its death.
struct OutputCapture {
    static let maximumLine = 8192
    static let maximumTail = 4096

    /// Lines a second, ten times as many at once; 0: no limit.
    private var rate: Double
    let descriptor: Int32
    let stream: String
    private var line: [UInt8] = []
    private var isCut = false
    /// The last bytes, up to twice as many as are kept: to move them for each line would cost more than all else.
    private var last: [UInt8] = []
    var tail: [UInt8] { Array(last.suffix(Self.maximumTail)) }
    private var allowance: Double
    private var refilled: UInt64 = 0
    private(set) var suppressed = 0
    /// The limit by which they were: it may be another by the time they are told.
    private var suppressedAbove = 0

    init(descriptor: Int32, stream: String, linesPerSecond: Int) {
        rate = Double(linesPerSecond)
        allowance = rate * 10
        self.descriptor = descriptor
        self.stream = stream
    }

    /// Another limit, from the next line on.
    mutating func limit(linesPerSecond: Int) {
        let limit = Double(linesPerSecond)
        // Without a limit nothing was counted.
        allowance = rate == 0 ? limit * 10 : min(allowance, limit * 10)
        rate = limit
    }

    /// Takes what was read; gives whole lines to `sink`.
    mutating func take(_ bytes: UnsafeRawBufferPointer, now: UInt64, sink: (String) -> Void) {
        for byte in bytes {
            if byte == 0x0A {
                emit(now: now, sink: sink)
            } else if line.count < Self.maximumLine {
                line.append(byte)
            } else {
                isCut = true
            }
        }
    }

    mutating func finish(now: UInt64, sink: (String) -> Void) {
        if !line.isEmpty { emit(now: now, sink: sink) }
        if suppressed > 0 {
            tellSuppressed(sink)
        }
    }

    private mutating func tellSuppressed(_ sink: (String) -> Void) {
        sink("\(suppressed) lines suppressed, more than \(suppressedAbove) a second")
        suppressed = 0
    }

    private mutating func emit(now: UInt64, sink: (String) -> Void) {
        defer {
            line.removeAll(keepingCapacity: true)
            isCut = false
        }
        last.append(contentsOf: line.suffix(Self.maximumTail - 1))
        last.append(0x0A)
        if last.count >= 2 * Self.maximumTail { last.removeFirst(last.count - Self.maximumTail) }
        allowance = min(rate * 10, allowance + Double(now - refilled) / 1e9 * rate)
        refilled = now
        guard allowance >= 1 || rate == 0 else {
            suppressed += 1
            suppressedAbove = Int(rate)
            return
        }
        if suppressed > 0 {
            tellSuppressed(sink)
        }
        if rate > 0 { allowance -= 1 }
        // Control characters would let a worker write what it likes to a terminal.
        for index in line.indices where line[index] < 0x20 && line[index] != 0x09 || line[index] == 0x7F { line[index] = 0x3F }
        sink(String(decoding: line, as: UTF8.self) + (isCut ? " …(cut)" : ""))
    }
}
