import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolProtocol
import PoolWire
import SwiftProtobuf

extension Shell {
    /// What an answer of `post-mortem` may weigh; older deaths are left out.
    private static let maximumPostMortemBytes = 16 << 20
    /// A body up to this size is hashed when its call outruns its budget, for the post-mortem alone.
    private static let maximumOverrunHash = 64 << 10

    // MARK: - What is remembered

    /// Everything of a worker that goes with it. Its output has been read to the end; its entry still stands.
    func deathRecord(_ pool: Int, _ worker: WorkerID, _ pid: Int32, _ exit: ExitCause, maximumResident: UInt64) -> DeathRecord {
        let entry = pools[pool].workers + Int(worker.slot)
        var record = DeathRecord(worker: worker, pid: pid, at: Journal.wallClock(), exit: exit)
        if let listing = pools[pool].machine.listing(worker) {
            record.wasStarting = !listing.wasReady
            record.calls = listing.calls
            record.held = listing.outstanding
            record.privateBytes = listing.privateBytes
        }
        if let running = runningCall(pool, worker) {
            record.method = "\(pools[pool].configuration.name).\(methodName(pool, running.method))"
            record.ran = running.span
            record.call = running.call ?? .none
            if let call = running.call {
                record.bodyBytes = (pools[pool].contexts + Int(call.index)).pointee.bodyLength
            } else if entry.pointee.overrun.number == running.number {
                record.bodyBytes = entry.pointee.overrun.bodyBytes
                record.hash = entry.pointee.overrun.hash
            }
        }
        record.lived = entry.pointee.bornAt > 0 ? now - entry.pointee.bornAt : 0
        record.maximumResidentBytes = maximumResident
        for output in entry.pointee.output {
            let tail = Self.printable(output.tail)
            if output.stream == "stderr" { record.standardError = tail } else { record.standardOutput = tail }
        }
        record.stack = Journal.bounded(stackText(pool, worker), DeathRecord.maximumStack)
        record.failure = Journal.bounded(entry.pointee.failure, DeathRecord.maximumFailure)
        return record
    }

    /// Control characters would let a worker write what it likes to a terminal.
    private static func printable(_ bytes: [UInt8]) -> String {
        String(decoding: bytes.map { $0 < 0x20 && $0 != 0x09 && $0 != 0x0A || $0 == 0x7F ? 0x3F : $0 }, as: UTF8.self)
    }

    /// What a worker's page says that it runs now, as far as poold has sent that.
    func runningCall(_ pool: Int, _ worker: WorkerID) -> (number: UInt64, method: MethodID, call: CallID?, span: Nanoseconds)? {
        guard pools[pool].workers[Int(worker.slot)].generation == worker.generation, let page = pools[pool].workers[Int(worker.slot)].page else { return nil }
        let number = cpoold_load(page + 2)
        guard number > 0, let sent = pools[pool].machine.sentCall(worker, number: number), let listing = pools[pool].machine.listing(worker) else { return nil }
        return (number, sent.method, sent.call, number == listing.first ? Instant(nanoseconds: now).since(listing.firstSince) : 0)
    }

    func methodName(_ pool: Int, _ method: MethodID) -> String {
        Int(method.index) < pools[pool].methods.count ? pools[pool].methods[Int(method.index)].name : "?"
    }

    /// A running call is given up: its body goes now, what the post-mortem says of it stays.
    mutating func noteOverrun(_ pool: Int, _ worker: WorkerID, _ number: UInt64) {
        guard let call = pools[pool].machine.givenUpCall(worker, number: number)?.call else { return }
        let context = pools[pool].contexts + Int(call.index)
        let bytes = context.pointee.bodyLength
        let hash = bytes <= Self.maximumOverrunHash ? Self.hash(method: context.pointee.method, flags: context.pointee.flags, context.pointee.body) : 0
        pools[pool].workers[Int(worker.slot)].overrun = OverrunCall(number: number, hash: hash, bodyBytes: bytes)
    }

    // MARK: - What the log says

    /// One line for each change of a worker: why, and what it was doing.
    mutating func noteWorker(_ pool: Int, _ worker: WorkerID, _ phase: WorkerPhase, _ cause: WorkerCause) {
        let death = phase == .empty ? pools[pool].deaths.settle(worker, cause) : nil
        let cause = death?.cause ?? cause
        var level: Logger.Level
        switch cause {
        case .spawnFailed, .setupFailed, .startTimeout, .hung, .unhealthy, .protocolFault, .socketClosed, .crashed, .exited, .graceOver:
            level = .warning
        case .becameReady, .age, .calls, .memory, .operatorRecycle, .operatorKill, .scaledDown: level = .info
        case .wanted, .shutdown, .replaced: level = .debug
        }
        var details: Logger.Metadata = metadata(pool, worker)
        details["cause"] = "\(cause)"
        if let death {
            // The end of poold took a call with it.
            if cause == .shutdown && !death.method.isEmpty { level = .warning }
            explainFailedStart(pool, death)
            details["pid"] = "\(death.pid)"
            details["exit"] = "\(death.exitText)"
            details["held"] = "\(death.held)"
            if !death.method.isEmpty {
                details["method"] = "\(death.method)"
                details["ran_milliseconds"] = "\(death.ran / 1_000_000)"
            }
            if death.hash != 0 { details["hash"] = "\(String(death.hash, radix: 16))" }
            return journal.note(level, "worker ended", details)
        }
        details["phase"] = "\(phase)"
        if phase == .terminating || phase == .killing, let running = runningCall(pool, worker) {
            details["method"] = "\(pools[pool].configuration.name).\(methodName(pool, running.method))"
            details["ran_milliseconds"] = "\(running.span / 1_000_000)"
        }
        journal.note(level, "worker changed", details)
    }

    /// Who ends before it is ready and has not said why: what is known is told to callers and in `status`.
    private mutating func explainFailedStart(_ pool: Int, _ death: DeathRecord) {
        guard pools[pool].failure.isEmpty, death.wasStarting else { return }
        let what =
            death.cause == .startTimeout ? "a worker was not ready within its start timeout" : "a worker ended with \(death.exitText) before it was ready"
        pools[pool].failure = death.standardError.isEmpty ? what : "\(what)\n\(death.standardError)"
    }

    // MARK: - The operator asks

    func postMortem(_ body: [UInt8]) throws -> [UInt8] {
        let wanted = try filtered(Poold_V1_PoolFilter(serializedBytes: body).pool)
        var found: [(at: UInt64, message: Poold_V1_Death)] = []
        for pool in wanted {
            for record in pools[pool].deaths.records {
                found.append((record.at, record.message(pool: pools[pool].configuration.name)))
            }
        }
        // The newest first: what happened last is what is asked about.
        found.sort { $0.at > $1.at }
        var message = Poold_V1_Deaths()
        var weight = 0
        for (_, death) in found {
            weight += death.stack.utf8.count + death.failure.utf8.count + death.stderrTail.utf8.count + death.stdoutTail.utf8.count + 256
            guard weight <= Self.maximumPostMortemBytes else { break }
            message.deaths.append(death)
        }
        return try message.serializedBytes()
    }

    /// The pools that a filter means: all, or the one of that name.
    func filtered(_ name: String) throws -> [Int] {
        if !name.isEmpty { return [try find(name)] }
        return (0..<poolCount).filter { !pools[$0].isRemoved || !pools[$0].isStopped }
    }
}
