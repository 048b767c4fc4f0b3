import ArgumentParser
import Glibc
import PoolClient
import PoolProtocol

@main
struct Poolctl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "poolctl",
        abstract: "Operate poold, and call what it serves.",
        discussion: """
            EXAMPLES
              poolctl call text.summarize '{"text": "…", "sentences": 2}'
              poolctl status
              poolctl scale text 4

            EXIT CODES
              0 done   1 the method raised an error   2 wrong usage   3 no poold answers
              4 refused (overloaded, draining, quota, quarantined, unavailable)
              5 timeout   6 the worker was lost   7 cancelled   8 no such pool or method   9 other
            """,
        version: "0.1.0",
        subcommands: [
            Call.self, StatusCommand.self, Methods.self, Ping.self, Scale.self, Recycle.self, Kill.self, Drain.self, Resume.self, Quarantine.self,
            Config.self, VersionCommand.self,
        ])
}

/// Where poold is, and how to fail.
struct Common: ParsableArguments {
    @Option(help: ArgumentHelp("poold's socket. Default: $POOLD_SOCKET, then the usual places.", valueName: "path"))
    var socket: String?

    @Flag(help: "Machine-readable output, one JSON value.")
    var json = false

    /// The places where poold listens when nobody says otherwise.
    static var places: [String] {
        var places: [String] = []
        if let runtime = getenv("XDG_RUNTIME_DIR") { places.append(String(cString: runtime) + "/poold/poold.sock") }
        return places + ["/run/poold/poold.sock", "/tmp/poold-\(getuid())/poold.sock"]
    }

    func path() throws -> String {
        if let socket { return socket }
        if let named = getenv("POOLD_SOCKET") { return String(cString: named) }
        if let found = Self.places.first(where: { access($0, F_OK) == 0 }) { return found }
        complain(
            "no poold was found. Looked for: \(Self.places.joined(separator: ", ")).\nStart it (`make run`, `poold serve`), or name its socket with --socket or $POOLD_SOCKET."
        )
        throw ExitCode(3)
    }

    func connect() throws -> PoolConnection {
        let path = try path()
        do { return try PoolConnection(path: path) } catch { throw failed(error) }
    }

    /// One operation of the control socket, which lies beside the callers'.
    func operate(_ operation: Poold_V1_Operation, _ body: [UInt8] = []) throws -> [UInt8] {
        let path = try path() + ".control"
        do {
            let connection = try PoolConnection(path: path, greets: false)
            return try connection.control(UInt16(operation.rawValue), body)
        } catch { throw failed(error) }
    }

    func failed(_ error: PoolError) -> ExitCode {
        if json {
            print(
                "{\"error\": {\"status\": \(quoted(error.status)), \"message\": \(quoted(error.message)), \"detail\": \(quoted(error.detail)), \"retry_after_seconds\": \(seconds(error.retryAfterNanoseconds))}}"
            )
        } else {
            complain(error.status == "connection" ? error.message : "\(error.status): \(error.message)")
            if !error.detail.isEmpty { complain(error.detail) }
            if error.retryAfterNanoseconds > 0 { complain("Retry after \(seconds(error.retryAfterNanoseconds)) s.") }
        }
        switch error.status {
        case "application_error", "bad_arguments", "result_unencodable", "result_too_large": return ExitCode(1)
        case "connection": return ExitCode(3)
        case "overloaded", "draining", "quota_exceeded", "quarantined", "pool_unavailable", "permission_denied": return ExitCode(4)
        case "timeout_waiting", "timeout_running": return ExitCode(5)
        case "worker_lost", "session_lost": return ExitCode(6)
        case "cancelled": return ExitCode(7)
        case "no_such_pool", "no_such_method", "method_gone": return ExitCode(8)
        default: return ExitCode(9)
        }
    }
}

func complain(_ text: String) {
    var line = text.hasSuffix("\n") ? text : text + "\n"
    line.withUTF8 { _ = write(2, $0.baseAddress, $0.count) }
}

/// A JSON string.
func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case "\r": result += "\\r"
        case "\t": result += "\\t"
        case _ where scalar.value < 0x20: result += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result + "\""
}

/// Nanoseconds as seconds, to the millisecond.
func seconds(_ nanoseconds: UInt64) -> String {
    let milliseconds = nanoseconds / 1_000_000
    let rest = milliseconds % 1000
    return "\(milliseconds / 1000).\(rest < 10 ? "00" : rest < 100 ? "0" : "")\(rest)"
}

/// "5s", "200ms", "1.5", "2m": what people write for a span.
func duration(_ text: String) throws -> Duration {
    let units: [(String, Double)] = [("ms", 1e-3), ("us", 1e-6), ("s", 1), ("m", 60), ("h", 3600), ("", 1)]
    for (suffix, factor) in units where text.hasSuffix(suffix) {
        guard let value = Double(text.dropLast(suffix.count)) else { continue }
        guard value > 0, value * factor <= 86_400 else { throw ValidationError("a timeout of \(text) is outside of 0…24 h") }
        return .nanoseconds(Int64(value * factor * 1e9))
    }
    throw ValidationError("timeout \(text) is not a span like 5s, 200ms or 2m")
}
