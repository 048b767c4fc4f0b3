import Glibc
package import Logging
package import PoolConfig
import Synchronization

/// The log of the process: where it goes, in which form, from which level, at which rate. All of it can change while it runs.
package final class LogControl: Sendable {
    /// stderr's.
    package static let shared = LogControl(descriptor: 2, isJournal: LogControl.isJournal(2))

    private struct State {
        var format = LogConfiguration.Format.text
        var rate: LogRate
        var output: LogOutput
    }
    private let level = Atomic<Int>(LogControl.number(.info))
    private let state: Mutex<State>
    private let isJournal: Bool

    package init(descriptor: Int32, isJournal: Bool) {
        self.isJournal = isJournal
        let rate = LogRate(perSecond: LogConfiguration().linesPerSecond, now: Self.monotonic())
        state = Mutex(State(rate: rate, output: LogOutput(descriptor: descriptor)))
    }

    /// A logger that writes here.
    package var logger: Logger { Logger(label: "poold") { _ in PoolLogHandler(control: self) } }

    /// Takes effect with the next line, on every thread.
    package static func apply(_ configuration: LogConfiguration) { shared.apply(configuration) }

    package func apply(_ configuration: LogConfiguration) {
        level.store(Self.number(Logger.Level(rawValue: configuration.level) ?? .info), ordering: .relaxed)
        state.withLock {
            $0.format = configuration.format
            $0.rate.change(perSecond: configuration.linesPerSecond, now: Self.monotonic())
        }
    }

    package var currentLevel: Logger.Level { Logger.Level.allCases[level.load(ordering: .relaxed)] }

    func write(_ level: Logger.Level, _ message: String, _ metadata: Logger.Metadata) {
        let isUrgent = level >= .warning
        state.withLock { state in
            let now = Self.monotonic()
            guard state.rate.allows(isUrgent: isUrgent, now: now) else { return }
            let (format, suppressed) = (state.format, state.rate.takeSuppressed(now: now))
            let time = isJournal ? "" : Self.timestamp()
            func line(_ level: Logger.Level, _ message: String, _ metadata: Logger.Metadata) -> String {
                LogLine(format: format, isJournal: isJournal, time: time, level: level, message: message, metadata: metadata).text
            }
            func droppedLine(_ lines: Int, _ error: Int32) -> String {
                line(
                    .warning, "lines of the log could not be written",
                    ["lines": "\(lines)", "reason": error == 0 ? "nobody read them" : "\(String(cString: strerror(error)))"])
            }
            if suppressed > 0 {
                state.output.write(line(.warning, "lines of the log were suppressed: too many at once", ["lines": "\(suppressed)"]), droppedLine: droppedLine)
            }
            state.output.write(line(level, message, metadata), droppedLine: droppedLine)
        }
    }

    // MARK: - Clocks

    /// For the rate: wall time may step.
    private static func monotonic() -> UInt64 {
        var clock = timespec()
        clock_gettime(CLOCK_MONOTONIC, &clock)
        return UInt64(clock.tv_sec) * 1_000_000_000 + UInt64(clock.tv_nsec)
    }

    /// RFC 3339 with microseconds, UTC. The only use of wall time in poold.
    private static func timestamp() -> String {
        var clock = timespec()
        clock_gettime(CLOCK_REALTIME, &clock)
        var parts = tm()
        gmtime_r(&clock.tv_sec, &parts)
        func digits(_ value: Int, _ count: Int) -> String {
            let text = "\(value)"
            return String(repeating: "0", count: max(0, count - text.utf8.count)) + text
        }
        return
            "\(digits(1900 + Int(parts.tm_year), 4))-\(digits(Int(parts.tm_mon) + 1, 2))-\(digits(Int(parts.tm_mday), 2))T\(digits(Int(parts.tm_hour), 2)):\(digits(Int(parts.tm_min), 2)):\(digits(Int(parts.tm_sec), 2)).\(digits(clock.tv_nsec / 1000, 6))Z"
    }

    /// Whether the descriptor is the very stream that systemd connected to the journal (systemd.exec(5), JOURNAL_STREAM).
    private static func isJournal(_ descriptor: Int32) -> Bool {
        var status = stat()
        guard let stream = getenv("JOURNAL_STREAM"), fstat(descriptor, &status) == 0 else { return false }
        return String(cString: stream) == "\(status.st_dev):\(status.st_ino)"
    }

    private static func number(_ level: Logger.Level) -> Int { Logger.Level.allCases.firstIndex(of: level) ?? 2 }
}

/// Hands events to a `LogControl`.
package struct PoolLogHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    /// Set on one logger, it holds for that one alone.
    private var ownLevel: Logger.Level?
    private let control: LogControl

    package init(control: LogControl) { self.control = control }

    package var logLevel: Logger.Level {
        get { ownLevel ?? control.currentLevel }
        set { ownLevel = newValue }
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        let all = event.metadata.map { metadata.isEmpty ? $0 : metadata.merging($0) { $1 } } ?? metadata
        control.write(event.level, "\(event.message)", all)
    }
}
