import Logging
import PoolConfig
import PoolCore
import PoolProtocol
import PoolWire
import SwiftProtobuf

/// `poolctl warm`: the pool's warming commands, run by ready workers as calls of poold's own. A call goes to one worker alone,
/// waits there behind what that runs, and ends like any other: so a death, a hang or a shutdown while warming needs no rules of its own.
extension Shell {
    // MARK: - Operations

    mutating func warmOperation(_ body: [UInt8]) throws -> [UInt8] {
        let request = try Poold_V1_PoolRequest(serializedBytes: body)
        let pool = try find(request.pool)
        guard !pools[pool].configuration.warm.isEmpty else {
            throw ControlFault(status: .badArguments, text: "pool \(request.pool) has no warming commands; give it some under `warm:` in the configuration")
        }
        if let running = warming.runningJob(ofPool: request.pool) {
            throw ControlFault(status: .overloaded, text: "pool \(request.pool) is being warmed already, by job \(running.number); wait until it is finished")
        }
        var ready: [WorkerID] = []
        for worker in pools[pool].machine.status(now: Instant(nanoseconds: now)).workers where worker.phase == .ready { ready.append(worker.worker) }
        let count = ready.count
        if request.slot >= 0 {
            let chosen = try worker(pool, request)
            ready.removeAll { $0 != chosen }
        }
        guard !ready.isEmpty else {
            let what = request.slot >= 0 ? "worker \(request.slot) of pool \(request.pool) is not ready" : "pool \(request.pool) has no ready worker"
            throw ControlFault(status: .poolUnavailable, text: "\(what); new ones are warmed before they are ready")
        }
        // A third at a time: the rest of the pool serves.
        let number = warming.begin(pool: pool, name: request.pool, atOnce: max(1, count / 3), workers: ready)
        journal.notice("warming", metadata: ["pool": "\(request.pool)", "job": "\(number)", "workers": "\(ready.count)"])
        continueWarming()
        return try progress(number)
    }

    func warmProgressOperation(_ body: [UInt8]) throws -> [UInt8] { try progress(Poold_V1_WarmRequest(serializedBytes: body).job) }

    private func progress(_ number: UInt64) throws -> [UInt8] {
        guard let job = warming.job(number) else {
            throw ControlFault(
                status: .badArguments, text: "there is no warming job \(number); the last \(WarmingTable.maximumFinished) that are over are remembered")
        }
        return try job.message.serializedBytes()
    }

    // MARK: - Calls

    /// Gives workers their turn. Not while effects are carried out: the arrival at hand must be this one.
    mutating func continueWarming() {
        while let (pool, name, worker, job) = warming.next() {
            guard pool < poolCount, pools[pool].configuration.name == name else {
                warming.refused(.gone, "the pool was removed")
                continue
            }
            let configuration = pools[pool].configuration
            // As long as its commands may take, and behind a call that has just begun there.
            let span = configuration.warmCommandTimeout.multipliedReportingOverflow(by: UInt64(configuration.warm.count))
            let budget = span.overflow ? UInt64.max : span.partialValue &+ configuration.policy.defaultBudget
            arrivalConnection = CallContext.warming
            arrivalHeader = Header(.call, flags: FrameFlags.end, id: job)
            arrivalBody = UnsafeRawBufferPointer(start: nil, count: 0)
            handle(pool, .callArrived(Arrival(identity: IdentityID(index: 0), method: .builtIn, budget: max(1, budget), target: worker)))
            arrivalConnection = -1
        }
    }

    mutating func warmAdmitted(_ pool: Int, _ call: CallID) {
        warming.admitted(call)
        pools[pool].contexts[Int(call.index)] = CallContext(
            connection: Int32(CallContext.warming), clientID: arrivalHeader.id, session: 0, block: Block(), bodyOffset: 0, bodyLength: 0,
            method: MethodID.builtIn.index, flags: arrivalHeader.flags, call: call, previous: .none, next: .none)
    }

    mutating func warmRefused(_ pool: Int, _ refusal: Refusal) {
        switch refusal.reason {
        case .sessionLost: warming.refused(.gone, "it ended or is being replaced")
        case .draining, .unavailable, .queueFull, .bytesFull, .wouldExpire, .quarantined, .sessionQuota:
            warming.refused(.failed, ErrorText.of(refusal, pool: pools[pool].configuration.name, unavailable: unavailable(pool)).1)
        }
    }

    /// The reply at hand answers a warming call.
    mutating func warmReplied(_ call: CallID, job: UInt64) {
        guard replyHeader.type == FrameType.result.rawValue, replyBody.count <= WarmingTable.maximumAnswer else {
            let text = String(decoding: replyBody.prefix(WarmingTable.maximumText), as: UTF8.self)
            return noteWarmed(warming.ended(job, call, .failed, text))
        }
        do {
            var options = JSONDecodingOptions()
            options.ignoreUnknownFields = true
            var commands = try Poold_V1_WarmedWorker(jsonUTF8Bytes: Array(replyBody), options: options).commands
            commands.removeLast(max(0, commands.count - WarmingTable.maximumCommands))
            for at in commands.indices {
                commands[at].command = Self.cut(commands[at].command)
                commands[at].problem = Self.cut(commands[at].problem)
            }
            let failed = commands.first { !$0.succeeded }
            let problem = failed.map { "\($0.command): \($0.problem.split(separator: "\n").first ?? "failed")" } ?? ""
            noteWarmed(warming.ended(job, call, failed == nil ? .warm : .failed, commands: commands, problem))
        } catch {
            noteWarmed(warming.ended(job, call, .failed, "its answer cannot be read: \(error)"))
        }
    }

    private static func cut(_ text: String) -> String {
        text.utf8.count <= WarmingTable.maximumText ? text : String(decoding: text.utf8.prefix(WarmingTable.maximumText), as: UTF8.self)
    }

    /// poold itself ended a warming call.
    mutating func warmFinished(_ pool: Int, _ call: CallID, _ outcome: Outcome, job: UInt64) {
        switch outcome {
        case .sessionLost, .draining, .unavailable, .shed, .cancelledWaiting:
            noteWarmed(warming.ended(job, call, .gone, "it ended or was replaced before its turn"))
        case .workerLost: noteWarmed(warming.ended(job, call, .failed, "it ended while it was warmed; see poolctl post-mortem"))
        case .timeoutWaiting: noteWarmed(warming.ended(job, call, .failed, "what it ran before took too long; try again"))
        case .timeoutRunning, .cancelledRunning:
            noteWarmed(warming.ended(job, call, .failed, ErrorText.of(outcome, pool: pools[pool].configuration.name, unavailable: unavailable(pool)).1))
        }
    }

    private mutating func noteWarmed(_ ended: (job: WarmingJob, entry: WarmingJob.Entry)?) {
        guard let (job, entry) = ended else { return }
        let worker: Logger.Metadata = [
            "pool": "\(job.poolName)", "job": "\(job.number)", "worker": "\(entry.worker.slot).\(entry.worker.generation)", "state": "\(entry.state)",
        ]
        if entry.state == .failed {
            journal.warning("worker could not be warmed", metadata: worker.merging(["problem": "\(entry.problem)"]) { $1 })
        } else {
            journal.info("worker warmed", metadata: worker)
        }
        if job.isFinished { journal.notice("warming is over", metadata: ["pool": "\(job.poolName)", "job": "\(job.number)"]) }
    }
}
