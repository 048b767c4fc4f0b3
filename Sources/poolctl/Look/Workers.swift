import ArgumentParser
import PoolProtocol

struct Workers: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "workers", abstract: "List workers: phase, process, load, memory.",
        usage: "poolctl workers [<pool>] [--watch [<seconds>]] [options]",
        discussion: """
            A worker is named SLOT.GENERATION; a slot's next process has a higher
            generation. FOR: since it entered its phase.

            EXAMPLES
              poolctl workers text
              poolctl workers --watch
            """)
    @OptionGroup var filter: PoolFilter
    @OptionGroup var watch: Watch
    @OptionGroup var common: Common

    func run() throws {
        try watch.show(common) { style in
            var status = try common.status()
            status.pools = try filter.select(status)
            if common.json { return try status.json() + "\n" }
            var table = Table([
                .left("POOL", canShrink: true), .left("WORKER"), .left("PHASE"), .right("PID"), .right("HOLDS"), .right("CALLS", rank: 1),
                .right("MEMORY", rank: 3), .right("FOR", rank: 2), .left("CAUSE", rank: 4), .left("RUNNING", rank: 5, canShrink: true),
                .right("SICK", rank: 6),
            ])
            for pool in status.pools {
                for worker in pool.workers {
                    let running = worker.runningMethod.isEmpty ? "" : "\(worker.runningMethod) \(Format.span(worker.runningNanoseconds))"
                    table.add([
                        Cell(pool.name), Cell(worker.name), .state(worker.phase), "\(worker.pid)", "\(worker.outstanding)", "\(worker.calls)",
                        Cell(worker.privateBytes > 0 ? Format.bytes(worker.privateBytes) : ""), Cell(Format.age(worker.ageNanoseconds)), Cell(worker.cause),
                        Cell(running), Cell(worker.healthFailures > 0 ? "\(worker.healthFailures)" : "", .warning),
                    ])
                }
            }
            if table.rows.isEmpty { return "no worker\n" }
            return table.lines(style).joined(separator: "\n") + "\n"
        }
    }
}
