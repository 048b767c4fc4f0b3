import ArgumentParser
import PoolClient
import PoolProtocol

struct Recycle: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "recycle", abstract: "Replace a pool's workers, make before break.",
        usage: "poolctl recycle <pool> [<worker>] [--wait [--timeout <span>]]",
        discussion: """
            A successor is ready before a worker goes, so no call waits for it.

            EXAMPLES
              poolctl recycle text --wait
              poolctl recycle text 0
            """)
    @OptionGroup var target: PoolArgument
    @Argument(help: "Only this worker, \(WorkerName.form). Default: all.") var worker: WorkerName?
    @OptionGroup var waiting: Waiting
    @OptionGroup var common: Common

    func run() throws {
        try worker?.check(common, pool: target.pool)
        let before = try Common.find(target.pool, in: try common.status())
        let old = Set(before.workers.filter { worker == nil || Int32(clamping: $0.slot) == worker?.slot }.map(\.name))
        let done = try common.order(.recycle, pool: target.pool, worker: worker)
        if !common.json { try common.show(done) }
        func left(_ pool: Poold_V1_Pool) -> Int { pool.workers.count { old.contains($0.name) } }
        try waiting.wait(
            common, pool: target.pool, describe: { "\(old.count - left($0)) of \(old.count) replaced, \($0.readyWorkers) ready" },
            isDone: { left($0) == 0 && $0.readyWorkers >= Int($0.wanted) })
        if common.json { try common.show(done) } else if waiting.wait { Output.line("\(Format.count(old.count, "worker")) replaced") }
    }
}

struct Kill: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "kill", abstract: "Kill one worker now, busy or not.",
        usage: "poolctl kill <pool> <worker> [options]",
        discussion: """
            Calls that it had begun end with worker_lost; those sent ahead go to another
            worker. `recycle` does it gently.

            EXAMPLE
              poolctl kill text 0
            """)
    @OptionGroup var target: PoolArgument
    @Argument(help: "The worker, \(WorkerName.form); see `poolctl workers`.") var worker: WorkerName
    @OptionGroup var common: Common

    func run() throws {
        try worker.check(common, pool: target.pool)
        try common.show(try common.order(.kill, pool: target.pool, worker: worker))
    }
}
