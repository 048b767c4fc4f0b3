import Glibc
import Logging

/// What poold itself has to say to an operator: written to the log, and the last of it kept for `poolctl events`.
///
/// The output of workers and the faults of callers go to the log alone: they would push out what matters.
struct Journal {
    struct Entry {
        var number: UInt64
        /// Wall clock, ns since 1970.
        var at: UInt64
        var level: Logger.Level
        var message: String
        var metadata: [String: String]
    }

    /// Entries that are kept.
    static let capacity = 1000
    /// Bytes of each value that are kept; the log has all.
    static let maximumValue = 2048

    let log: Logger
    /// A ring once it is full: the oldest stands at `last % capacity`.
    private var entries: [Entry] = []
    /// Number of the newest; the first is 1.
    private(set) var last: UInt64 = 0

    init(log: Logger) { self.log = log }

    mutating func note(_ level: Logger.Level, _ message: String, _ metadata: Logger.Metadata = [:]) {
        log.log(level: level, "\(message)", metadata: metadata)
        guard level >= .info else { return }
        last += 1
        let entry = Entry(
            number: last, at: Self.wallClock(), level: level, message: message,
            metadata: metadata.mapValues { Self.bounded("\($0)", Self.maximumValue) })
        if entries.count < Self.capacity {
            entries.append(entry)
        } else {
            entries[Int((last - 1) % UInt64(Self.capacity))] = entry
        }
    }

    mutating func debug(_ message: String, metadata: Logger.Metadata = [:]) { note(.debug, message, metadata) }
    mutating func info(_ message: String, metadata: Logger.Metadata = [:]) { note(.info, message, metadata) }
    mutating func notice(_ message: String, metadata: Logger.Metadata = [:]) { note(.notice, message, metadata) }
    mutating func warning(_ message: String, metadata: Logger.Metadata = [:]) { note(.warning, message, metadata) }
    mutating func error(_ message: String, metadata: Logger.Metadata = [:]) { note(.error, message, metadata) }

    /// What is kept of the entries after `number`, oldest first, and how many of them are gone.
    func entries(after number: UInt64) -> (kept: [Entry], lost: UInt64) {
        let firstKept = last - UInt64(entries.count) + 1
        let first = max(number &+ 1, firstKept)
        guard number < last else { return ([], 0) }
        var kept: [Entry] = []
        for wanted in first...last { kept.append(entries[Int((wanted - 1) % UInt64(Self.capacity))]) }
        return (kept, first - (number + 1))
    }

    static func wallClock() -> UInt64 {
        var clock = timespec()
        clock_gettime(CLOCK_REALTIME, &clock)
        return UInt64(clock.tv_sec) * 1_000_000_000 + UInt64(clock.tv_nsec)
    }

    /// The beginning of a text, whole characters.
    static func bounded(_ text: String, _ bytes: Int) -> String {
        guard text.utf8.count > bytes else { return text }
        return String(decoding: text.utf8.prefix(bytes), as: UTF8.self) + " …(cut)"
    }
}
