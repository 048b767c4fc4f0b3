import ArgumentParser
import PoolProtocol

struct Drain: Connecting {
    static let configuration = CommandConfiguration(
        abstract: "Let a pool finish its calls and refuse new ones.",
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
        abstract: "Undo drain.",
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
        abstract: "End calls that wait or run; their callers get `cancelled`.",
        usage: "poolctl cancel <call> ... [options]",
        discussion: """
            EXAMPLE
              poolctl cancel text:17.3        # as `poolctl calls` names it
            """)
    @Argument(help: "Calls, as `poolctl calls` names them.") var calls: [String]
    @OptionGroup var common: Common

    func run() throws {
        let connection = try common.connectControl()
        for call in calls {
            var request = Poold_V1_CancelRequest()
            request.call = call
            let pool = String(call.prefix { $0 != ":" })
            try common.show(try common.ask(.cancel, request, pool: pool, on: connection))
        }
    }
}
