import ArgumentParser
import PoolClient
import PoolProtocol

struct Warm: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "warm", abstract: "Run a pool's warming commands in its workers.",
        usage: "poolctl warm <pool> [--slot <worker>] [options]",
        discussion: """
            `warm:` of the configuration names them; each new worker runs them before
            it is ready. Exit code 1 if any failed.

            EXAMPLES
              poolctl warm text
              poolctl warm text --slot 0
            """)
    @OptionGroup var target: PoolArgument
    @Option(help: ArgumentHelp("Only this worker, \(WorkerName.form).", valueName: "worker")) var slot: WorkerName?
    @OptionGroup var common: Common

    static let pause = 0.2

    func run() throws {
        try slot?.check(common, pool: target.pool)
        Interrupt.watch()
        let connection = try common.connectControl()
        var job: Poold_V1_WarmProgress = try common.ask(.warm, Common.request(target.pool, slot), pool: target.pool, on: connection)
        var progress = Progress(isSilent: common.json)
        var request = Poold_V1_WarmRequest()
        request.job = job.job
        while !job.finished {
            let done = job.workers.count { $0.isFinished }
            progress.show("\(Progress.bar(done, of: job.workers.count)) \(done) of \(Format.count(job.workers.count, "worker")) warmed in \(target.pool)")
            guard Interrupt.sleep(seconds: Self.pause) else {
                progress.end()
                complain("poold goes on warming (job \(job.job))")
                throw ExitCode(130)
            }
            job = try Common.afterwards { () throws(PoolError) in try common.ask(.warmProgress, request, on: connection) }
        }
        progress.end()
        Output.write(common.json ? try job.json() + "\n" : Self.text(job, common.style))
        if job.workers.contains(where: \.hasFailed) { throw ExitCode(ExitStatus.failed.rawValue) }
    }

    /// A line per command, then what went wrong.
    static func text(_ job: Poold_V1_WarmProgress, _ style: Style) -> String {
        guard !job.workers.isEmpty else { return "pool \(job.pool) has no worker to warm\n" }
        var order: [String] = []
        var runs: [String: [Poold_V1_WarmedCommand]] = [:]
        for command in job.workers.flatMap(\.commands) {
            if runs[command.command] == nil { order.append(command.command) }
            runs[command.command, default: []].append(command)
        }
        var table = Table([.left("COMMAND", canShrink: true), .right("WORKERS"), .right("AVERAGE"), .right("MAXIMUM"), .right("FAILED")])
        for name in order {
            let all = runs[name]!
            let failed = all.count { !$0.succeeded }
            let total = all.reduce(0.0) { $0 + Double($1.nanoseconds) }
            table.add([
                Cell(name), "\(all.count)", Cell(Format.span(UInt64(total / Double(all.count)))),
                Cell(Format.span(all.map(\.nanoseconds).max() ?? 0)), Cell("\(failed)", failed > 0 ? .bad : .plain),
            ])
        }
        var lines = order.isEmpty ? ["pool \(job.pool) has no warming command; `warm:` of its configuration names them"] : table.lines(style)
        for worker in job.workers {
            if !worker.problem.isEmpty { lines += Format.lines("worker \(worker.worker): \(worker.state): \(worker.problem)", indent: 0) }
            for command in worker.commands where !command.succeeded {
                lines += Format.lines("worker \(worker.worker): \(command.command) failed: \(command.problem)", indent: 0)
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension Poold_V1_WarmedWorker {
    var isFinished: Bool { state != "waiting" && state != "warming" }
    /// A worker that was replaced meanwhile (gone) has failed nothing.
    var hasFailed: Bool { state == "failed" || commands.contains { !$0.succeeded } }
}
