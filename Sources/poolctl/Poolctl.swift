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
            Poolctl.exit(withError: error)
        }
    }

    /// An unknown command: the parser would only call it an unexpected argument.
    private static func explainTypo(_ arguments: [String]) {
        let names = configuration.groupedSubcommands.flatMap(\.subcommands).map { $0._commandName }
        explainTypo(arguments.first, of: "poolctl", among: names)
        if arguments.first == "config" {
            explainTypo(arguments.dropFirst().first, of: "poolctl config", among: Config.configuration.subcommands.map { $0._commandName })
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
        let isLocal = ["connection", "failed", "timeout", "not_found"].contains(error.status)
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
