import ArgumentParser
import Glibc
import PoolClient

/// Every command says its `commandName`: the parser would take it from the type's name, which costs as much as the rest of a start.
@main
struct Poolctl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "poolctl",
        abstract: "Operate poold, and call what it serves.",
        discussion: """
            EXAMPLES
              poolctl call text.summarize '{"text": "…", "sentences": 2}'
              poolctl status --watch
              poolctl scale text 4 --wait

            \(ExitStatus.text)
            """,
        version: "0.1.0",
        groupedSubcommands: [
            CommandGroup(name: "Calling", subcommands: [Call.self, Methods.self, Ping.self]),
            CommandGroup(
                name: "Looking",
                subcommands: [
                    StatusCommand.self, Pools.self, Workers.self, Calls.self, Sessions.self, StatsCommand.self, EventsCommand.self, PostMortem.self,
                    VersionCommand.self,
                ]),
            CommandGroup(
                name: "Operating",
                subcommands: [
                    Scale.self, Warm.self, Recycle.self, Drain.self, Resume.self, Kill.self, Cancel.self, StackCommand.self, Quarantine.self, Reload.self,
                ]),
            CommandGroup(name: "This machine", subcommands: [Config.self, Doctor.self, Completion.self]),
        ])

    static func main() {
        occupyStandardStreams()
        let arguments = Array(CommandLine.arguments.dropFirst())
        var common: Common?
        do {
            if let plain = PlainStatus(arguments) {
                common = plain.common
                return try plain.run()
            }
            explainTypo(arguments)
            var command = try parseAsRoot(Scale.protectSigns(arguments))
            common = (command as? any Connecting)?.common
            try command.run()
        } catch let error as PoolError {
            report(error, asJSON: common?.json ?? false)
            Poolctl.exit(withError: ExitCode(ExitStatus.of(error).rawValue))
        } catch {
            if !exitCode(for: error).isSuccess { Poolctl.exit(withError: error) }
            // Help or the version: the parser would not notice that it cannot be written.
            let text = fullMessage(for: error)
            if !text.isEmpty { Output.line(text) }
        }
    }

    /// The number of a closed one would go to the next thing that is opened, and the output into poold's socket. What stands there instead fails:
    /// no result is lost, and no empty body called, unnoticed.
    private static func occupyStandardStreams() {
        for descriptor: Int32 in 0...2 where fcntl(descriptor, F_GETFD) < 0 {
            guard open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY) == descriptor else { Glibc.exit(ExitStatus.other.rawValue) }
        }
    }

    /// An unknown command: the parser would only call it an unexpected argument, and `help` of it would be help of everything.
    private static func explainTypo(_ arguments: [String]) {
        let isHelp = arguments.first == "help"
        let command = isHelp ? "poolctl help" : "poolctl"
        let words = arguments.dropFirst(isHelp ? 1 : 0)
        let names = configuration.groupedSubcommands.flatMap(\.subcommands).map { $0._commandName }
        explainTypo(words.first, of: command, among: names)
        if words.first == "config" {
            explainTypo(words.dropFirst().first, of: "\(command) config", among: Config.configuration.subcommands.map { $0._commandName })
        }
    }

    private static func explainTypo(_ word: String?, of command: String, among names: [String]) {
        guard let word, !word.hasPrefix("-"), word != "help", !names.contains(word) else { return }
        let advice = Nearest.match(word, among: names).map { "did you mean `\(command) \($0)`?" } ?? "see `\(command) --help`"
        complain("poolctl: there is no command \(Format.visible(word)); \(advice)")
        Poolctl.exit(withError: ExitCode.validationFailure)
    }

    static func report(_ error: PoolError, asJSON: Bool) {
        if asJSON {
            Output.line(
                "{\"error\": {\"status\": \(quoted(error.status)), \"message\": \(quoted(error.message)), \"detail\": \(quoted(error.detail)), \"retry_after_seconds\": \(seconds(error.retryAfterNanoseconds))}}"
            )
            return
        }
        let isLocal = ["connection", "failed", "timeout", "not_found", "wrong_usage"].contains(error.status)
        complain(Format.visible(isLocal ? "poolctl: \(error.message)" : "\(error.status): \(error.message)"))
        if !error.detail.isEmpty { complain(Format.visible(error.detail)) }
        if error.retryAfterNanoseconds > 0 { complain("Retry after \(seconds(error.retryAfterNanoseconds)) s.") }
    }
}

/// A command that talks to poold.
protocol Connecting: ParsableCommand {
    var common: Common { get }
}

/// Nanoseconds as seconds, to the millisecond.
func seconds(_ nanoseconds: UInt64) -> String {
    let milliseconds = nanoseconds / 1_000_000
    let rest = milliseconds % 1000
    return "\(milliseconds / 1000).\(rest < 10 ? "00" : rest < 100 ? "0" : "")\(rest)"
}
