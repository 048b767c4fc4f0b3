import ArgumentParser
import PoolProtocol

struct StackCommand: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "stack", abstract: "Show where living workers are in their Python code.",
        usage: "poolctl stack <pool> [<worker>] [options]",
        discussion: """
            Threads and asyncio tasks. The worker goes on undisturbed. One that holds the
            interpreter in C cannot answer.

            EXAMPLES
              poolctl stack text
              poolctl stack text 0
            """)
    @OptionGroup var target: PoolArgument
    @Argument(help: "Only this worker, \(WorkerName.form). Default: every ready one.") var worker: WorkerName?
    @OptionGroup var common: Common

    static let limit = Duration.seconds(15)

    func run() throws {
        try worker?.check(common, pool: target.pool)
        let stacks: Poold_V1_Stacks = try common.ask(.stack, Common.request(target.pool, worker), pool: target.pool, limit: Self.limit)
        if common.json { return Output.line(try stacks.json()) }
        guard !stacks.stacks.isEmpty else { return Output.line("pool \(target.pool) has no ready worker") }
        let style = common.style
        for (index, stack) in stacks.stacks.enumerated() {
            if index > 0 { Output.line("") }
            let work = stack.runningMethod.isEmpty ? "idle" : "running \(stack.runningMethod)"
            Output.line(Format.visible("worker \(stack.worker) of \(stack.pool), pid \(stack.pid), \(work)"))
            if !stack.problem.isEmpty { Output.line("  " + style.paint("no stack: \(Format.visible(stack.problem))", .warning)) }
            for line in Format.lines(stack.text, indent: 2) { Output.line(line) }
        }
    }
}
