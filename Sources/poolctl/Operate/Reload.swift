import ArgumentParser
import PoolProtocol

struct Reload: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "reload", abstract: "Read the configuration again and apply what changed.",
        usage: "poolctl reload [--dry-run] [options]",
        discussion: """
            live: applied at once. recycle: the pool's workers are replaced, make before
            break. restart: takes effect when poold is restarted. If anything is wrong
            with the file, nothing is changed, and the exit code is 1.

            EXAMPLES
              poolctl reload --dry-run
              poolctl reload
            """)
    @Flag(help: "Only say what would be done.") var dryRun = false
    @OptionGroup var common: Common

    static let limit = Duration.seconds(30)

    func run() throws {
        var request = Poold_V1_ReloadRequest()
        request.dryRun = dryRun
        let result: Poold_V1_ReloadResult = try common.ask(.reload, request, limit: Self.limit)
        if common.json {
            Output.line(try result.json())
        } else if !result.errors.isEmpty {
            for error in result.errors { complain(Format.visible(error)) }
            complain("Nothing was changed.")
        } else if result.changes.isEmpty {
            Output.line("nothing differs from what runs")
        } else {
            var table = Table([.left("EFFECT"), .left("KEY", canShrink: true), .left("FROM", canShrink: true), .left("TO", canShrink: true)])
            for change in result.changes {
                table.add([.state(change.effect), Cell(Format.visible(change.key)), Cell(Self.oneLine(change.old)), Cell(Self.oneLine(change.new))])
            }
            Output.line(table.lines(common.style).joined(separator: "\n"))
            if dryRun { Output.line("Nothing was changed: --dry-run.") }
            if result.changes.contains(where: { $0.effect == "restart" }) { Output.line("Restart poold for what says restart.") }
        }
        if !result.errors.isEmpty { throw ExitCode(ExitStatus.failed.rawValue) }
    }

    private static func oneLine(_ text: String) -> String { Format.visible(text).split(separator: "\n").joined(separator: " ") }
}
