import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolProtocol
import PoolWire
import SwiftProtobuf

/// The version that poold and its tools report.
package enum PooldVersion {
    package static let text = "0.1.0"
}

/// Why an operation could not be done.
struct ControlFault: Error {
    var status: Status
    var text: String
}

extension Shell {
    /// One whole frame on the control socket: CONTROL, or PING.
    mutating func controlFrame(_ index: Int, _ header: Header, _ body: UnsafeRawBufferPointer) {
        connections[index].hasSpoken = true
        switch FrameType(rawValue: header.type) {
        case .ping:
            guard body.count <= 1024 else { return refuseConnection(index, .badFrame, "PING takes at most 1024 bytes, not \(body.count)") }
            appendFrame(index, Header(.pong, id: header.id, time: header.time), body)
        case .control:
            // Long against a call: one of a connection, then the others' turn.
            extraWork += Self.maximumExtraWork + 1
            guard mayDo(index, Poold_V1_Operation(rawValue: Int(header.code)) ?? .unspecified) else {
                return appendError(
                    index, id: header.id, .permissionDenied, time: 0,
                    "your user may not do this; `roles` in poold's configuration says who may look and who may operate")
            }
            do {
                if header.code == UInt16(Poold_V1_Operation.reload.rawValue) { return try reload(index, header, Array(body)) }
                if header.code == UInt16(Poold_V1_Operation.stack.rawValue) { return try operatorStack(index, header.id, Array(body)) }
                let reply = try answerOperation(index, header.code, Array(body))
                reply.withUnsafeBytes { appendFrame(index, Header(.control, code: header.code, id: header.id), $0) }
            } catch let fault as ControlFault {
                appendError(index, id: header.id, fault.status, time: 0, fault.text)
            } catch {
                appendError(index, id: header.id, .badArguments, time: 0, "the message of operation \(header.code) cannot be read: \(error)")
            }
        case .hello, .welcome, .methods, .call, .result, .chunk, .error, .cancel, .window, .release, .pong, .drain, nil:
            refuseConnection(
                index, .badFrame, "the control socket takes CONTROL and PING, not frame type \(header.type); calls go to \(configuration.socketPath)")
        }
    }

    private mutating func answerOperation(_ index: Int, _ code: UInt16, _ body: [UInt8]) throws -> [UInt8] {
        let operation = Poold_V1_Operation(rawValue: Int(code)) ?? .UNRECOGNIZED(Int(code))
        switch operation {
        case .status: return try statusMessage().serializedBytes()
        case .version: return try versionMessage().serializedBytes()
        case .scale:
            let request = try Poold_V1_ScaleRequest(serializedBytes: body)
            let pool = try find(request.pool, isSteered: true)
            let before = pools[pool].machine.status(now: Instant(nanoseconds: now)).wanted
            handle(pool, .scale(workers: Int(request.workers)))
            let after = pools[pool].machine.status(now: Instant(nanoseconds: now)).wanted
            var text = "pool \(request.pool): \(before) → \(after) workers"
            if after != Int(request.workers) {
                text += " (\(request.workers) is outside of \(pools[pool].machine.policy.minimumWorkers)…\(pools[pool].machine.policy.maximumWorkers))"
            }
            if after < before { text += "; idle ones end now, busy ones when they have finished their calls" }
            if after > before { text += "; new ones serve as soon as they are ready" }
            return try done(text)
        case .recycle:
            let request = try Poold_V1_PoolRequest(serializedBytes: body)
            let pool = try find(request.pool)
            if request.slot < 0 {
                startAnew(pool)
                return try done("every worker of \(request.pool) is replaced, \(pools[pool].machine.policy.surge) at a time, make before break")
            }
            handle(pool, .recycle(try worker(pool, request)))
            return try done("worker \(request.slot) of \(request.pool) is replaced once its successor is ready")
        case .kill:
            let request = try Poold_V1_PoolRequest(serializedBytes: body)
            let pool = try find(request.pool)
            handle(pool, .kill(try worker(pool, request)))
            return try done("worker \(request.slot) of \(request.pool) is killed; calls that it had begun end with worker_lost")
        case .drain:
            let request = try Poold_V1_PoolRequest(serializedBytes: body)
            handle(try find(request.pool, isSteered: true), .drain)
            return try done("pool \(request.pool) refuses new calls and finishes those it has; `resume` undoes it")
        case .resume:
            let request = try Poold_V1_PoolRequest(serializedBytes: body)
            handle(try find(request.pool), .resume)
            return try done("pool \(request.pool) takes calls again")
        case .clearQuarantine:
            return try clearQuarantine(body)
        case .calls: return try listCalls(body)
        case .cancel: return try cancelCall(body)
        case .sessions: return try listSessions(body)
        case .postMortem: return try postMortem(body)
        case .quarantine: return try quarantineList(body)
        case .events: return try listEvents(body)
        case .configuration: return try effectiveConfiguration(index).serializedBytes()
        case .warm: return try warmOperation(body)
        case .warmProgress: return try warmProgressOperation(body)
        case .stats: return try statsMessage(try Poold_V1_PoolFilter(serializedBytes: body).pool).serializedBytes()
        case .stack, .reload, .unspecified, .UNRECOGNIZED:
            throw ControlFault(status: .badArguments, text: "operation \(code) does not exist in poold \(PooldVersion.text)")
        }
    }

    func done(_ text: String, affected: Int = 0) throws -> [UInt8] {
        var message = Poold_V1_Done()
        message.affected = UInt32(affected)
        message.explanation = text
        return try message.serializedBytes()
    }

    /// `isSteered`: not one that poold needs for itself, which is not for an operator to scale or drain.
    func find(_ name: String, isSteered: Bool = false) throws -> Int {
        var names: [String] = []
        for pool in 0..<poolCount where !pools[pool].isRemoved {
            if pools[pool].configuration.name == name {
                guard isSteered && pools[pool].configuration.isReserved else { return pool }
                throw ControlFault(
                    status: .permissionDenied, text: "pool \(name) is poold's own, for the watchdog: it always has one worker; `canary: off` does without")
            }
            names.append(pools[pool].configuration.name)
        }
        throw ControlFault(status: .noSuchPool, text: "there is no pool \(name); there are: \(names.joined(separator: ", "))")
    }

    func worker(_ pool: Int, _ request: Poold_V1_PoolRequest) throws -> WorkerID {
        let slot = request.slot
        guard slot >= 0, Int(slot) < pools[pool].workerCapacity, pools[pool].workers[Int(slot)].pid > 0 else {
            throw ControlFault(status: .badArguments, text: "pool \(pools[pool].configuration.name) has no worker \(slot); see poolctl status")
        }
        let generation = pools[pool].workers[Int(slot)].generation
        guard request.generation == 0 || request.generation == generation else {
            throw ControlFault(
                status: .badArguments,
                text: "worker \(slot).\(request.generation) of pool \(pools[pool].configuration.name) is gone; its slot has \(slot).\(generation) now")
        }
        return WorkerID(slot: UInt16(slot), generation: generation)
    }

    private func versionMessage() -> Poold_V1_Version {
        var message = Poold_V1_Version()
        message.version = PooldVersion.text
        message.pid = getpid()
        message.protocol = 1
        message.configurationFile = configuration.file ?? ""
        message.socket = configuration.socketPath
        message.controlSocket = configuration.controlPath
        return message
    }

    private mutating func statusMessage() -> Poold_V1_Status {
        var message = Poold_V1_Status()
        message.version = versionMessage()
        message.uptimeNanoseconds = now - started
        message.connections = UInt32(max(0, clientCount - (service.canary.socket >= 0 ? 1 : 0)))
        message.summary = summary()
        for pool in 0..<poolCount where !pools[pool].isRemoved { message.pools.append(poolMessage(pool)) }
        return message
    }

    private func poolMessage(_ pool: Int) -> Poold_V1_Pool {
        let status = pools[pool].machine.status(now: Instant(nanoseconds: now))
        var message = Poold_V1_Pool()
        message.name = pools[pool].configuration.name
        message.module = pools[pool].configuration.module
        // A pool whose workers do not come back from their calls is not well, even while they count as ready.
        message.health = status.health == .ready && status.workers.contains(where: \.isStuck) ? "degraded" : "\(status.health)"
        message.circuit = "\(status.circuit)"
        message.wanted = UInt32(status.wanted)
        message.queuedCalls = UInt32(status.queuedCalls)
        message.queuedBytes = status.queuedBytes
        message.outstanding = UInt32(status.outstanding)
        message.sessions = UInt32(status.sessions)
        message.quarantined = UInt32(status.quarantined)
        message.predictedWaitNanoseconds = status.predictedWait
        message.template = "\(pools[pool].template.state)"
        message.templatePid = pools[pool].template.pid
        message.failure = pools[pool].failure
        message.warmCommands = UInt32(pools[pool].configuration.warm.count)
        message.minimumWorkers = UInt32(pools[pool].machine.policy.minimumWorkers)
        message.maximumWorkers = UInt32(pools[pool].machine.policy.maximumWorkers)
        message.reserved = pools[pool].configuration.isReserved
        for worker in status.workers {
            var line = Poold_V1_Worker()
            line.slot = UInt32(worker.worker.slot)
            line.generation = worker.worker.generation
            line.phase = worker.phase.name
            line.cause = worker.cause.name
            line.healthFailures = UInt32(worker.healthFailures)
            line.pid = pools[pool].workers[Int(worker.worker.slot)].pid
            line.outstanding = UInt32(worker.outstanding)
            line.calls = worker.calls
            line.ageNanoseconds = Instant(nanoseconds: now).since(worker.since)
            line.privateBytes = worker.privateBytes
            line.healthFailures = UInt32(worker.healthFailures)
            line.cause = pools[pool].machine.listing(worker.worker).map { "\($0.cause)" } ?? ""
            if let running = runningCall(pool, worker.worker) {
                line.runningMethod = methodName(pool, running.method)
                line.runningNanoseconds = running.span
            }
            message.workers.append(line)
        }
        for method in pools[pool].methods {
            var line = Poold_V1_Method()
            line.name = method.name
            line.codec = method.codec.name
            line.idempotent = method.flags & MethodEntry.idempotent != 0
            line.number = UInt32(method.number)
            message.methods.append(line)
        }
        message.counters = Self.message(status.counters)
        return message
    }

    // MARK: - What the log hears

    mutating func publish(_ pool: Int, _ notice: Notice) {
        if pools[pool].methodsDiffer, case .worker = notice { methodReviews.append(pool) }
        let name: Logger.Metadata = ["pool": "\(pools[pool].configuration.name)"]
        switch notice {
        case .worker(let worker, let phase, let cause): noteWorker(pool, worker, phase, cause)
        case .poolHealth(let health):
            switch health {
            case .unavailable: journal.error("pool cannot serve", metadata: name.merging(["reason": "\(pools[pool].failure)"]) { $1 })
            case .degraded: journal.warning("pool has fewer workers than wanted", metadata: name)
            case .starting, .ready, .draining, .stopped: journal.notice("pool changed", metadata: name.merging(["health": "\(health)"]) { $1 })
            }
        case .circuit(let state): journal.warning("circuit breaker changed", metadata: name.merging(["state": "\(state)"]) { $1 })
        case .quarantined(let method, let hash):
            let method = Int(method.index) < pools[pool].methods.count ? pools[pool].methods[Int(method.index)].name : "?"
            journal.error(
                "a call that killed workers is refused from now on",
                metadata: name.merging(["method": "\(method)", "body_hash": "\(String(hash, radix: 16))"]) { $1 })
        case .scaled(let from, let to): journal.notice("pool scaled", metadata: name.merging(["from": "\(from)", "to": "\(to)"]) { $1 })
        case .pageScribbled(let worker):
            journal.error("worker wrote rubbish to its execution page; all its calls count as begun", metadata: metadata(pool, worker))
        case .backingOff(let span): journal.warning("next start is delayed", metadata: name.merging(["milliseconds": "\(span / 1_000_000)"]) { $1 })
        case .callRetried(_, let attempt): journal.info("idempotent call runs again", metadata: name.merging(["attempt": "\(attempt)"]) { $1 })
        case .takenBack(let worker, let calls):
            journal.debug("calls sent ahead are taken back", metadata: metadata(pool, worker).merging(["calls": "\(calls)"]) { $1 })
        case .killWithheld(let worker): journal.warning("hung worker is spared: too many were killed of late", metadata: metadata(pool, worker))
        }
    }
}
