import PoolCore

/// What the shadow model hears of workers: each change of phase must be a way that exists, and must have its reason.
extension Simulation {
    mutating func published(_ notice: Notice) throws(Violation) {
        switch notice {
        case .worker(let worker, let phase, let cause): try changed(worker, phase, cause)
        case .poolHealth(let new):
            guard new != health else { throw fail("health \(new) is published twice") }
            health = new
        case .circuit(let state): try circuitChanged(state)
        case .quarantined(_, let hash):
            guard isQuarantined(hash) else { throw fail("body \(hash) is put in quarantine without \(policy.quarantineDeaths) deaths") }
        case .scaled(let old, let new):
            guard old == wanted, new != old else { throw fail("scaled from \(old) to \(new), but \(wanted) were wanted") }
            guard new >= policy.minimumWorkers, new <= policy.maximumWorkers else { throw fail("scaled to \(new), outside of the bounds") }
            wanted = new
        case .pageScribbled(let worker):
            guard let exit = exitAtHand, exit.worker == worker else {
                guard let slot = simulated(worker), workers[slot].isDeaf else { throw fail("\(worker) is said to have scribbled") }
                return
            }
        case .backingOff(let span):
            totals[.backOffs] += 1
            failedStarts += 1
            backOffUntil = max(backOffUntil, (Instant(nanoseconds: told) + span).nanoseconds)
        case .callRetried(let call, let attempt):
            totals[.retried] += 1
            counters.retried += 1
            let serial = try alive(call, "callRetried")
            guard calls[serial].idempotent else { throw fail("\(call) is retried but not idempotent") }
            guard calls[serial].losses < max(1, policy.maximumAttempts) else { throw fail("\(call) is tried more than \(policy.maximumAttempts) times") }
            calls[serial].lossesForgiven = calls[serial].losses
            guard attempt == calls[serial].losses + 1 else { throw fail("attempt \(attempt) of \(call), which was lost \(calls[serial].losses) times") }
        case .takenBack(_, let calls):
            totals[.takenBack] += calls
            counters.takenBack += UInt64(calls)
        case .killWithheld: totals[.killsWithheld] += 1
        }
    }

    private mutating func circuitChanged(_ state: CircuitState) throws(Violation) {
        switch (circuit, state) {
        case (.closed, .open), (.halfOpen, .open): totals[.circuitOpened] += 1
        case (.open, .halfOpen): totals[.circuitHalfOpened] += 1
        case (.halfOpen, .closed): totals[.circuitClosed] += 1
        case (.open, .closed) where policy.circuitFailures == 0: totals[.circuitClosed] += 1
        case (.closed, .closed), (.closed, .halfOpen), (.open, .open), (.open, .closed), (.halfOpen, .halfOpen):
            throw fail("the circuit goes from \(circuit) to \(state)")
        }
        circuit = state
        if state == .open { probe = nil }
    }

    private mutating func changed(_ worker: WorkerID, _ phase: WorkerPhase, _ cause: WorkerCause) throws(Violation) {
        let slot = Int(worker.slot)
        guard slot < workers.count else { throw fail("\(worker) in slot \(slot) of \(workers.count)") }
        if phase == .spawning {
            tallyPhase(from: .empty, because: .wanted, to: phase, cause)
            return try born(worker)
        }
        let old = workers[slot].phase
        guard workers[slot].generation == worker.generation else { throw fail("\(worker) changes its phase but \(id(slot)) lives there") }
        guard Self.isWay(from: old, to: phase) else { throw fail("\(worker) goes from \(old) to \(phase)") }
        if phase == .terminating || phase == .killing {
            try checkReason(slot, phase, cause)
            if let tally = Tally(cause) { totals[tally] += 1 }
        }
        if phase == .draining, let tally = Tally(cause) { totals[tally] += 1 }
        tallyPhase(from: old, because: workers[slot].cause, to: phase, cause)
        if phase == .killing { counters.kills += 1 }
        if phase == .starting { counters.spawned += 1 }
        if phase == .ready { failedStarts = 0 }
        if phase == .empty && workers[slot].life != .none { throw fail("\(worker) lives and its slot is said to be empty") }
        if phase == .ready && (workers[slot].life != .serving || workers[slot].isUnheard) { throw fail("\(worker) is not ready") }
        workers[slot].phase = phase
        workers[slot].cause = cause
        workers[slot].since = told
        workers[slot].phaseLimit = limit(of: phase)
    }

    private func limit(of phase: WorkerPhase) -> UInt64 {
        switch phase {
        case .starting: return policy.startTimeout
        case .draining: return policy.drainGrace
        case .terminating: return policy.terminateGrace
        case .empty, .spawning, .ready, .killing: return .max
        }
    }

    private static func isWay(from old: WorkerPhase, to new: WorkerPhase) -> Bool {
        switch old {
        case .empty: return new == .spawning
        case .spawning: return new == .starting || new == .empty
        case .starting: return new == .ready || new == .terminating || new == .killing || new == .empty
        case .ready: return new == .draining || new == .terminating || new == .killing || new == .empty
        case .draining: return new == .terminating || new == .killing || new == .empty
        case .terminating: return new == .killing || new == .empty
        case .killing: return new == .empty
        }
    }

    private mutating func born(_ worker: WorkerID) throws(Violation) {
        let slot = Int(worker.slot)
        guard workers[slot].phase == .empty, workers[slot].life == .none else { throw fail("\(worker) is born in a slot that is in use") }
        guard worker.generation == workers[slot].generation &+ 1 else { throw fail("generation \(worker.generation) follows \(workers[slot].generation)") }
        workers[slot] = SimulatedWorker()
        workers[slot].generation = worker.generation
        workers[slot].phase = .spawning
        workers[slot].since = told
        var starting = 0
        var occupied = 0
        for other in workers where other.phase != .empty {
            occupied += 1
            if other.phase == .spawning || other.phase == .starting { starting += 1 }
        }
        guard starting <= policy.startingAtOnce else { throw fail("\(starting) workers start at once, \(policy.startingAtOnce) may") }
        guard occupied <= policy.maximumWorkers + policy.surge else {
            throw fail("\(occupied) processes; \(policy.maximumWorkers) and \(policy.surge) are allowed")
        }
        guard !isEnding else { throw fail("\(worker) is started after the end of the shutdown's limit") }
    }

    /// TERM and KILL have their reasons; a busy worker that did no wrong is spared.
    private mutating func checkReason(_ slot: Int, _ phase: WorkerPhase, _ cause: WorkerCause) throws(Violation) {
        let worker = workers[slot]
        let wasFor = told - min(told, worker.since)
        let isRight: Bool
        switch cause {
        case .hung where worker.phase == .terminating, .unhealthy where worker.phase == .terminating:
            isRight = worker.cause == cause && (wasFor >= worker.phaseLimit || isKillingAll)
        case .hung:
            isRight = worker.phase == .ready && hasHung(slot)
            if hangKills == 0 { firstHangKill = told }
            hangKills += 1
            let refilled = policy.killRefill == 0 ? UInt64.max : (told - firstHangKill) / policy.killRefill
            if refilled < 1 << 40, hangKills > max(1, policy.killAllowance) + Int(refilled) + 1 { throw fail("\(hangKills) hung workers were killed") }
        case .protocolFault, .socketClosed: isRight = worker.isFaulty || worker.isDeaf || worker.isUnheard
        case .operatorKill: isRight = worker.operatorKilled
        case .shutdown:
            isRight = isShuttingDown && (told >= shutdownAt || worker.phase == .starting) && (phase == .killing) == isKillingAll
        case .graceOver:
            switch worker.phase {
            case .draining: isRight = wasFor >= worker.phaseLimit
            case .terminating: isRight = wasFor >= worker.phaseLimit && worker.cause != .hung && worker.cause != .unhealthy
            case .empty, .spawning, .starting, .ready, .killing: isRight = false
            }
        case .startTimeout: isRight = worker.phase == .starting && wasFor >= worker.phaseLimit
        case .setupFailed: isRight = worker.phase == .starting && worker.isFaulty
        case .unhealthy: isRight = worker.phase == .ready && worker.outstanding == 0 && worker.unansweredPings >= policy.healthFailures
        case .scaledDown, .age, .calls, .memory, .operatorRecycle: isRight = worker.phase == .starting
        case .wanted, .spawnFailed, .becameReady, .exited, .crashed, .replaced: isRight = false
        }
        guard isRight else {
            throw fail("\(id(slot)), \(worker.phase) with \(worker.outstanding) calls outstanding, is \(phase) because of \(cause), which is not so")
        }
    }

    /// A call that ended while it ran has not returned for `hangAfter`.
    private func hasHung(_ slot: Int) -> Bool {
        for held in workers[slot].held where held.overranAt > 0 {
            if told - min(told, held.overranAt) >= held.patience { return true }
        }
        return false
    }

    var readyWorkers: Int {
        var count = 0
        for slot in workers.indices where workers[slot].phase == .ready { count += 1 }
        return count
    }

    var isUnavailable: Bool { readyWorkers == 0 && failedStarts >= max(policy.unavailableAfter, 1) }

    var hasIdleWorker: Bool {
        for slot in workers.indices where isIdle(slot) { return true }
        return false
    }

    func isIdle(_ slot: Int) -> Bool {
        workers[slot].phase == .ready && workers[slot].outstanding == 0 && !workers[slot].isDeaf && !workers[slot].isUnheard
    }

    /// Whether an idle worker could have this call, for all that binds it.
    func hasIdleWorker(for arrival: Arrival) -> Bool {
        if let slot = simulated(arrival.target) { return isIdle(slot) && !mayBeLost(arrival.target) }
        guard arrival.target == .none else { return false }
        let key = SessionKey(identity: arrival.identity.index, session: arrival.session)
        if arrival.session != 0 && policy.affinity == .require, let bound = sessions[key] {
            // One that was bound under another policy, or is perhaps forgotten by now, may be bound anew.
            guard bound.isFirm, let slot = simulated(bound.worker), isIdle(slot) else { return false }
        }
        return hasIdleWorker
    }
}
