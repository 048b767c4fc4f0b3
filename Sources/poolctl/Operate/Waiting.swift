import ArgumentParser
import PoolClient
import PoolProtocol

/// `--wait`: stays until what was asked for is done.
struct Waiting: ParsableArguments {
    @Flag(help: "Wait until it is done.") var wait = false
    @Option(help: ArgumentHelp("With --wait: at most so long, \(Span.form). Default: 60s.", valueName: "span")) var timeout: Span?

    static let pause = 0.2
    static let limit = Duration.seconds(60)

    func validate() throws {
        guard wait || timeout == nil else { throw ValidationError("--timeout needs --wait") }
    }

    /// Polls the pool until `isDone`; `describe` is the progress line.
    func wait(_ common: Common, pool name: String, describe: (Poold_V1_Pool) -> String, isDone: (Poold_V1_Pool) -> Bool) throws {
        guard wait else { return }
        let clock = ContinuousClock()
        let limit = timeout?.duration ?? Self.limit
        let end = clock.now + limit
        var progress = Progress(isSilent: common.json)
        Interrupt.watch()
        let connection = try Common.afterwards { () throws(PoolError) in try common.connectControl() }
        while true {
            let status: Poold_V1_Status = try Common.afterwards { () throws(PoolError) in try common.ask(.status, on: connection) }
            let pool = try Common.find(name, in: status)
            if isDone(pool) { return progress.end() }
            let failure = pool.failure.split(separator: "\n").first.map { ": \(Format.visible(String($0)))" } ?? ""
            progress.show("\(name): \(describe(pool))\(failure)")
            guard clock.now < end else {
                progress.end()
                throw PoolError(
                    status: "timeout", message: "pool \(name) is not there yet after \(limit): \(describe(pool)); it goes on, see `poolctl status`",
                    detail: pool.failure)
            }
            guard Interrupt.sleep(seconds: Self.pause) else {
                progress.end()
                throw ExitCode(130)
            }
        }
    }
}

extension Common {
    /// Prints what poold says will happen.
    func show(_ done: Poold_V1_Done) throws { Output.line(json ? try done.json() : Format.visible(done.explanation)) }

    /// An operation on a pool, or on one of its workers.
    func order(_ operation: Poold_V1_Operation, pool: String, worker: WorkerName? = nil) throws(PoolError) -> Poold_V1_Done {
        try ask(operation, Self.request(pool, worker), pool: pool)
    }

    static func request(_ pool: String, _ worker: WorkerName?) -> Poold_V1_PoolRequest {
        var request = Poold_V1_PoolRequest()
        request.pool = pool
        request.slot = worker?.slot ?? -1
        request.generation = worker?.generation ?? 0
        return request
    }
}

/// SLOT, or SLOT.GENERATION as the tables show it: then only that very process is meant, and poold leaves its successor alone.
struct WorkerName: ExpressibleByArgument {
    var slot: Int32
    var generation: UInt32?

    init?(argument: String) {
        let parts = argument.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count <= 2, let slot = Int32(parts[0]), slot >= 0 else { return nil }
        self.slot = slot
        if parts.count == 2 {
            guard let generation = UInt32(parts[1]) else { return nil }
            self.generation = generation
        }
    }

    /// What the help says of it.
    static let form = "SLOT or SLOT.GENERATION (then only that process)"

    /// Refuses a slot without a worker, and a process that is no longer there: its slot has another one now.
    func check(_ common: Common, pool name: String) throws(PoolError) {
        let pool = try Common.find(name, in: try common.status())
        let worker = pool.workers.first { Int32(clamping: $0.slot) == slot }
        if let generation, worker?.generation != generation {
            throw PoolError(status: "not_found", message: "worker \(slot).\(generation) of pool \(name) is gone; see `poolctl workers \(name)`")
        }
        guard worker != nil else {
            throw PoolError(status: "not_found", message: "pool \(name) has no worker \(slot); see `poolctl workers \(name)`")
        }
    }
}
