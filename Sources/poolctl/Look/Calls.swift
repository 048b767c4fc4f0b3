import ArgumentParser
import PoolProtocol

struct Calls: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "calls", abstract: "List calls that wait or run, the oldest first.",
        usage: "poolctl calls [<pool>] [--watch [<seconds>]] [options]",
        discussion: """
            CALL names it for `poolctl cancel`. At most 1000 are listed.

            EXAMPLES
              poolctl calls text
              poolctl calls --watch 1
            """)
    @OptionGroup var filter: PoolFilter
    @OptionGroup var watch: Watch
    @OptionGroup var common: Common

    func run() throws {
        try watch.show(common) { style in
            let calls: Poold_V1_Calls = try common.ask(.calls, filter.message, pool: filter.pool)
            if common.json { return try calls.json() + "\n" }
            guard !calls.calls.isEmpty else { return "no call waits or runs\n" }
            var table = Table([
                .left("CALL"), .left("METHOD", canShrink: true), .left("PLACE"), .left("WORKER", rank: 2), .right("AGE"), .right("LEFT", rank: 1),
                .right("BODY", rank: 4), .right("UID", rank: 5), .right("PID", rank: 3), .left("PRIORITY", rank: 7), .right("SESSION", rank: 8),
                .right("TRIES", rank: 6),
            ])
            for call in calls.calls.sorted(by: { $0.ageNanoseconds > $1.ageNanoseconds }) {
                table.add([
                    Cell(call.call), Cell(call.method), call.running ? Cell("running", .good) : .state(call.place), Cell(call.worker),
                    Cell(Format.span(call.ageNanoseconds)), Cell(call.remainingNanoseconds > 0 ? Format.span(call.remainingNanoseconds) : ""),
                    Cell(Format.bytes(call.bodyBytes)), "\(call.uid)", "\(call.clientPid)", Cell(call.priority == "normal" ? "" : call.priority),
                    Cell(call.session == 0 ? "" : "\(call.session)"), Cell(call.attempts > 1 ? "\(call.attempts)" : ""),
                ])
            }
            var lines = table.lines(style)
            if Int(calls.total) > calls.calls.count { lines.append("… \(Int(calls.total) - calls.calls.count) more") }
            return lines.joined(separator: "\n") + "\n"
        }
    }
}

struct Sessions: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "sessions", abstract: "List sessions and the worker that each is bound to.",
        usage: "poolctl sessions [<pool>] [options]",
        discussion: """
            At most 1000 are listed.

            EXAMPLE
              poolctl sessions text
            """)
    @OptionGroup var filter: PoolFilter
    @OptionGroup var common: Common

    func run() throws {
        let sessions: Poold_V1_Sessions = try common.ask(.sessions, filter.message, pool: filter.pool)
        if common.json { return Output.line(try sessions.json()) }
        guard !sessions.sessions.isEmpty else { return Output.line("no session is known") }
        var table = Table([.left("POOL", canShrink: true), .right("SESSION"), .right("UID"), .left("WORKER"), .right("CALLS"), .right("UNUSED FOR")])
        for session in sessions.sessions {
            table.add([
                Cell(session.pool), "\(session.session)", "\(session.uid)", Cell(session.worker), "\(session.calls)",
                Cell(Format.age(session.unusedNanoseconds)),
            ])
        }
        Output.line(table.lines(common.style).joined(separator: "\n"))
        if Int(sessions.total) > sessions.sessions.count { Output.line("… \(Int(sessions.total) - sessions.sessions.count) more") }
    }
}
