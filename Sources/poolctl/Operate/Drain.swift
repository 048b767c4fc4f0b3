import ArgumentParser
import PoolClient
import PoolProtocol

struct Drain: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "drain", abstract: "Let a pool finish its calls and refuse new ones.",
        usage: "poolctl drain <pool> [--wait [--timeout <span>]] [options]",
        discussion: """
            `poolctl resume` undoes it.

            EXAMPLE
              poolctl drain text --wait
            """)
    @OptionGroup var target: PoolArgument
    @OptionGroup var waiting: Waiting
    @OptionGroup var common: Common

    func run() throws {
        let done = try common.order(.drain, pool: target.pool)
        if !common.json { try common.show(done) }
        try waiting.wait(
            common, pool: target.pool, describe: { "\($0.queuedCalls) queued, \($0.outstanding) at workers" },
            isDone: { $0.queuedCalls == 0 && $0.outstanding == 0 })
        if common.json { try common.show(done) } else if waiting.wait { Output.line("pool \(target.pool) holds no call any more") }
    }
}

struct Resume: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "resume", abstract: "Undo drain.",
        usage: "poolctl resume <pool> [options]",
        discussion: """
            EXAMPLE
              poolctl resume text
            """)
    @OptionGroup var target: PoolArgument
    @OptionGroup var common: Common
    func run() throws { try common.show(try common.order(.resume, pool: target.pool)) }
}

struct Cancel: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "End calls that wait or run; their callers get `cancelled`.",
        usage: "poolctl cancel <call> ... [options]",
        discussion: """
            EXAMPLE
              poolctl cancel text:17.3        # as `poolctl calls` names it
            """)
    @Argument(help: "Calls, as `poolctl calls` names them.") var calls: [String]
    @OptionGroup var common: Common

    func validate() throws {
        for call in calls where !Self.isName(call) {
            throw ValidationError("\(call) does not name a call; `poolctl calls` lists them as POOL:INDEX.GENERATION")
        }
    }

    /// One that has ended already keeps none of the others.
    func run() throws {
        let connection = try common.connectControl()
        var hasEnded = false
        var isBegun = false
        for call in calls {
            var request = Poold_V1_CancelRequest()
            request.call = call
            do {
                let cancel = { () throws(PoolError) -> Poold_V1_Done in
                    try common.ask(.cancel, request, pool: String(call.prefix { $0 != ":" }), on: connection)
                }
                let done = try isBegun ? Common.afterwards(cancel) : cancel()
                isBegun = true
                try common.show(done)
            } catch let error as PoolError {
                // It is a call's name, so what is wrong with it is that there is no such call any more.
                guard error.status == "bad_arguments" else { throw error }
                hasEnded = true
                Poolctl.report(PoolError(status: "not_found", message: error.message), asJSON: common.json)
            }
        }
        if hasEnded { throw ExitCode(ExitStatus.notFound.rawValue) }
    }

    private static func isName(_ text: String) -> Bool {
        guard let colon = text.lastIndex(of: ":"), colon != text.startIndex else { return false }
        let parts = text[text.index(after: colon)...].split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 2 && parts.allSatisfy { UInt32($0) != nil }
    }
}
