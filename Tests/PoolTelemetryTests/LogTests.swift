import Glibc
import Logging
import PoolConfig
import Testing

@testable import PoolTelemetry

@Suite struct LogLineTests {
    private func line(_ format: LogConfiguration.Format, journal: Bool = false, _ message: String, _ metadata: Logger.Metadata = [:]) -> String {
        LogLine(format: format, isJournal: journal, time: "2026-01-02T03:04:05.000006Z", level: .warning, message: message, metadata: metadata).text
    }

    @Test func textForPeople() {
        #expect(line(.text, "pool changed", ["b": "2", "a": "x y"]) == "2026-01-02T03:04:05.000006Z warning pool changed a=\"x y\" b=2\n")
        #expect(line(.text, "m", ["line": "a\nb\"\u{1B}[0m"]) == "2026-01-02T03:04:05.000006Z warning m line=\"a\\nb\\\"\\x1b[0m\"\n")
        #expect(line(.text, "m", ["empty": ""]).hasSuffix(" empty=\"\"\n"))
    }

    /// A value cannot end early, so a worker cannot write fields of its own.
    @Test func nothingForgesAField() {
        #expect(line(.text, journal: true, "m", ["line": #"x\" pid=1"#]) == #"<4>warning m line="x\\\" pid=1""# + "\n")
        #expect(line(.text, journal: true, "m", ["line": #"a\"#, "pid": "1"]) == #"<4>warning m line="a\\" pid=1"# + "\n")
        #expect(line(.text, journal: true, "m", ["line": #"C:\n"#]) == #"<4>warning m line="C:\\n""# + "\n")
    }

    /// Control characters of both tables, and what some readers take for a line break.
    @Test func controlCharactersAreShown() {
        let controls = [0..<0x20, 0x7F..<0xA0, 0x2028..<0x202A].joined().map { Unicode.Scalar(UInt32($0))! }
        for control in controls {
            for format in LogConfiguration.Format.allCases {
                let written = line(format, journal: true, "m\(control)", ["line": "a\(control)b"])
                #expect(!written.dropLast().unicodeScalars.contains(control), "\(format) \(control.value)")
            }
        }
        #expect(line(.text, journal: true, "m\u{85}", ["line": "a\u{9B}\u{2028}b"]) == #"<4>warning "m\x85" line="a\x9b\u2028b""# + "\n")
        #expect(
            line(.json, journal: true, "m\u{9B}", ["line": "\u{80}\u{2029}"])
                == #"<4>{"level":"warning","message":"m\u009b","line":"\u0080\u2029"}"# + "\n")
        #expect(line(.text, journal: true, "m", ["line": "é😀\u{A0}"]) == "<4>warning m line=é😀\u{A0}\n")
    }

    @Test func oneObjectALine() {
        #expect(
            line(.json, "pool changed", ["pool": "text", "level": "9"])
                == #"{"time":"2026-01-02T03:04:05.000006Z","level":"warning","message":"pool changed","level_":"9","pool":"text"}"# + "\n")
        #expect(
            line(.json, "m", ["line": "\"\\\n\r\t\u{0}\u{1F}\u{7F}\u{2028}é😀"])
                == #"{"time":"2026-01-02T03:04:05.000006Z","level":"warning","message":"m","line":"\"\\\n\r\t\u0000\u001f\u007f\u2028é😀"}"# + "\n")
    }

    @Test func theJournalKeepsTheTime() {
        #expect(line(.text, journal: true, "m", ["a": "1"]) == "<4>warning m a=1\n")
        #expect(line(.json, journal: true, "m") == #"<4>{"level":"warning","message":"m"}"# + "\n")
    }
}

@Suite struct LogRateTests {
    private let second: UInt64 = 1_000_000_000

    /// Of so many lines, how many it lets through.
    private func passed(_ rate: inout LogRate, of lines: Int, isUrgent: Bool, now: UInt64) -> Int {
        var count = 0
        for _ in 0..<lines where rate.allows(isUrgent: isUrgent, now: now) { count += 1 }
        return count
    }

    @Test func tenSecondsWorthAtOnceOfWhichTheLastIsForWarnings() {
        var rate = LogRate(perSecond: 10, now: 0)
        #expect(passed(&rate, of: 200, isUrgent: false, now: 0) == 90)
        #expect(passed(&rate, of: 200, isUrgent: true, now: 0) == 10)
        let suppressed = [rate.takeSuppressed(now: 0), rate.takeSuppressed(now: 0)]
        #expect(suppressed == [110 + 190, 0])
        // A second's worth more, all of it reserved.
        #expect(passed(&rate, of: 1, isUrgent: false, now: second) == 0)
        #expect(passed(&rate, of: 1, isUrgent: true, now: second) == 1)
        #expect(passed(&rate, of: 200, isUrgent: false, now: 100 * second) == 90)
    }

    /// A flood brings no line about what it lost with each line that passes, and those lines count too.
    @Test func tellingOfALossIsPartOfTheRate() {
        var rate = LogRate(perSecond: 2, now: 0)
        var (passed, lost, told, notices) = (0, 0, 0, 0)
        // A hundred lines a second for a hundred seconds.
        for step in 0..<UInt64(10_000) {
            let now = step * second / 100
            guard rate.allows(isUrgent: true, now: now) else {
                lost += 1
                continue
            }
            passed += 1
            let suppressed = rate.takeSuppressed(now: now)
            told += suppressed
            if suppressed > 0 { notices += 1 }
        }
        #expect(passed + notices <= 20 + 200, "\(passed) \(notices)")
        #expect(passed >= 100 && (50...100).contains(notices))
        #expect(told + rate.suppressed == lost)
    }

    @Test func aLossIsToldAtMostOnceASecond() {
        var rate = LogRate(perSecond: 100, now: 0)
        _ = passed(&rate, of: 1001, isUrgent: true, now: 0)
        var told = [rate.takeSuppressed(now: 0)]
        for now in [second / 2, second - 1, second] {
            _ = passed(&rate, of: 1000, isUrgent: true, now: now)
            told.append(rate.takeSuppressed(now: now))
        }
        #expect(told[...2] == [1, 0, 0] && told[3] > 2000)
    }

    @Test func noLimitAndAnotherLimit() {
        var rate = LogRate(perSecond: 0, now: 0)
        #expect(passed(&rate, of: 10_000, isUrgent: false, now: 0) == 10_000)
        rate.change(perSecond: 1, now: second)
        #expect(passed(&rate, of: 100, isUrgent: true, now: second) == 10)
    }
}

@Suite struct LogOutputTests {
    private func dropped(_ lines: Int, _ error: Int32) -> String { "dropped \(lines) \(error)\n" }
    private func pipe() -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        precondition(Glibc.pipe(&ends) == 0)
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        return (ends[0], ends[1])
    }
    private func readAll(_ descriptor: Int32) -> String {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count <= 0 { return String(decoding: all, as: UTF8.self) }
            all += buffer[..<count]
        }
    }

    @Test func aSlowReaderGetsEveryLineThatWaitsAndTheNumberOfTheOthers() {
        let (reader, writer) = pipe()
        var output = LogOutput(descriptor: writer)
        let long = String(repeating: "x", count: 9_999) + "\n"
        // A pipe takes 64 KiB, the output 1 MiB.
        for _ in 0..<200 { output.write(long, droppedLine: dropped) }
        let waiting = 200 - output.dropped
        #expect(output.dropped > 80 && waiting > 104)
        let lost = output.dropped
        var text = ""
        for _ in 0..<400 {
            text += readAll(reader)
            output.write("", droppedLine: dropped)
        }
        text += readAll(reader)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
        #expect(lines.count == waiting + 1)
        #expect(lines.last.map(String.init) == "dropped \(lost) 0")
        #expect(lines.dropLast().allSatisfy { $0.utf8.count == 9_999 })
        close(reader)
        close(writer)
    }

    @Test(arguments: ["full", "broken pipe", "closed"])
    func whatCannotBeWrittenHoldsNothingUp(_ kind: String) {
        signal(SIGPIPE, SIG_IGN)
        let descriptor: Int32
        let error: Int32
        switch kind {
        case "full": (descriptor, error) = (open("/dev/full", O_WRONLY), ENOSPC)
        case "broken pipe":
            let (reader, writer) = pipe()
            close(reader)
            (descriptor, error) = (writer, EPIPE)
        default: (descriptor, error) = (987_654, EBADF)
        }
        var output = LogOutput(descriptor: descriptor)
        let long = String(repeating: "x", count: 9_999) + "\n"
        for _ in 0..<200 { output.write(long, droppedLine: dropped) }
        #expect(output.dropped == 200 - LogOutput.maximumWaiting / 10_000)
        #expect(output.lastError == error)
        if kind != "closed" { close(descriptor) }
    }

    @Test func aLevelAndAFormChangeWhileItRuns() {
        let (reader, writer) = pipe()
        let control = LogControl(descriptor: writer, isJournal: true)
        let log = control.logger
        log.debug("not yet")
        var configuration = LogConfiguration()
        configuration.level = "debug"
        configuration.format = .json
        control.apply(configuration)
        log.debug("now", metadata: ["a": "1"])
        configuration.level = "error"
        control.apply(configuration)
        log.warning("no more")
        #expect(readAll(reader) == #"<7>{"level":"debug","message":"now","a":"1"}"# + "\n")
        close(reader)
        close(writer)
    }

    @Test func whatWasSuppressedIsToldByTheNextLine() {
        let (reader, writer) = pipe()
        let control = LogControl(descriptor: writer, isJournal: true)
        var configuration = LogConfiguration()
        configuration.linesPerSecond = 1
        control.apply(configuration)
        for _ in 0..<50 { control.logger.info("flood") }
        control.logger.error("matters")
        let lines = readAll(reader).split(separator: "\n").map(String.init)
        #expect(lines.suffix(2) == ["<4>warning lines of the log were suppressed: too many at once lines=41", "<3>error matters"])
        #expect(lines.dropLast(2) == ArraySlice(repeating: "<6>info flood", count: 9))
        close(reader)
        close(writer)
    }
}
