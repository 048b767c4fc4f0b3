import ArgumentParser
import PoolClient
import PoolProtocol

struct EventsCommand: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "events", abstract: "Show what happened of late, as the log has it.",
        usage: "poolctl events [<pool>] [--follow] [--last <n>] [--level <severity>]",
        discussion: """
            With --json and --follow: one event a line.

            EXAMPLES
              poolctl events text --last 20
              poolctl events --follow --level warning
            """)
    @OptionGroup var filter: PoolFilter
    @Flag(name: .shortAndLong, help: "Go on with new ones until Ctrl-C.") var follow = false
    @Option(help: "So many at first. Default: 50; with --json all that are kept.") var last: Int?
    @Option(
        help: ArgumentHelp("This severity and above: \(Self.severities.joined(separator: ", ")).", valueName: "severity"),
        completion: .list(Self.severities))
    var level: String = Self.severities[0]
    @OptionGroup var common: Common

    static let severities = ["debug", "info", "notice", "warning", "error"]
    static let pause = 0.5

    func validate() throws {
        guard Self.severities.contains(level) else {
            let advice = Nearest.match(level, among: Self.severities).map { "; did you mean \($0)?" } ?? ""
            throw ValidationError("--level \(level) is not one of \(Self.severities.joined(separator: ", "))\(advice)")
        }
        if let last, last < 0 { throw ValidationError("--last \(last) is below 0") }
    }

    func run() throws {
        var request = Poold_V1_EventsRequest()
        request.pool = filter.pool ?? ""
        let connection = try common.connectControl()
        var events: Poold_V1_Events = try common.ask(.events, request, pool: filter.pool, on: connection)
        // One that a reload has removed may have events still.
        if let pool = filter.pool, events.events.isEmpty { _ = try Common.find(pool, in: try common.ask(.status, on: connection)) }
        events.events = Array(events.events.filter(isWanted).suffix(last ?? (common.json ? .max : 50)))
        guard follow else {
            if common.json { return Output.line(try events.json()) }
            if events.events.isEmpty { Output.line("nothing happened") }
            for event in events.events { show(event) }
            return
        }
        Interrupt.watch()
        while true {
            for event in events.events where isWanted(event) { common.json ? Output.line(try event.json()) : show(event) }
            // A poold that was started anew counts from 1 again.
            request.after = events.last
            guard Interrupt.sleep(seconds: Self.pause) else { return }
            do { events = try common.ask(.events, request, pool: filter.pool, on: connection) } catch {
                if Interrupt.hasArrived { return }
                throw error
            }
            if events.lost > 0 { complain("… \(events.lost) events went by unseen") }
        }
    }

    private func isWanted(_ event: Poold_V1_OperatorEvent) -> Bool {
        (Self.severities.firstIndex(of: event.level) ?? .max) >= Self.severities.firstIndex(of: level)!
    }

    private func show(_ event: Poold_V1_OperatorEvent) {
        let style = common.style
        let metadata = event.metadata.sorted { $0.key < $1.key }.map { "\($0.key)=\(Self.value($0.value))" }.joined(separator: " ")
        Output.line("\(Format.clock(event.at)) \(style.paint(Format.pad(event.level, 7), Tone.of(event.level))) \(Format.visible(event.message))  \(metadata)")
    }

    /// As one word: quoted where it has spaces or line breaks.
    static func value(_ text: String) -> String { text.contains(where: \.isWhitespace) || text.isEmpty ? quoted(text) : Format.visible(text) }
}
