extension PoolMachine {
    // MARK: - Birth

    mutating func spawned(_ worker: WorkerID, _ effects: inout EffectBuffer) {
        guard let slot = live(worker) else { return }
        switch workers[slot].phase {
        case .spawning:
            counters.spawned += 1
            let cause = workers[slot].cause
            enter(slot, .starting, .wanted, &effects)
            arm(slot, .phase, at: now + policy.startTimeout)
            if killingAll {
                kill(slot, .shutdown, &effects)
            } else if workers[slot].leaving {
                terminate(slot, cause, &effects)
            }
        case .empty, .starting, .ready, .draining, .terminating, .killing: return
        }
    }

    mutating func spawnFailed(_ worker: WorkerID, _ effects: inout EffectBuffer) {
        guard let slot = live(worker) else { return }
        switch workers[slot].phase {
        case .spawning:
            let unwanted = workers[slot].leaving
            vacate(slot, .spawnFailed, &effects)
            if !unwanted { startFailed(&effects) }
            reconcile(&effects)
        case .empty, .starting, .ready, .draining, .terminating, .killing: return
        }
    }

    mutating func becameReady(_ worker: WorkerID, _ effects: inout EffectBuffer) {
        guard let slot = live(worker), !workers[slot].deaf else { return }
        switch workers[slot].phase {
        case .starting:
            enter(slot, .ready, .becameReady, &effects)
            disarm(slot, .phase)
            workers[slot].readyAt = now
            setLimits(slot)
            if policy.healthInterval > 0 { arm(slot, .health, at: now + policy.healthInterval) }
            armUpkeep(slot)
            failedStarts = 0
            reconcile(&effects)
            rest(slot)
            serveQueue(&effects)
        case .empty, .spawning, .ready, .draining, .terminating, .killing: return
        }
    }

    /// Its exit follows; the failure is counted there.
    mutating func setupFailed(_ worker: WorkerID, _ effects: inout EffectBuffer) {
        guard let slot = live(worker) else { return }
        switch workers[slot].phase {
        case .starting:
            workers[slot].deaf = true
            terminate(slot, .setupFailed, &effects)
        case .empty, .spawning, .ready, .draining, .terminating, .killing: return
        }
    }

    // MARK: - Phases

    func isStarting(_ phase: WorkerPhase) -> Bool { phase == .spawning || phase == .starting }

    /// The one place where a phase changes; keeps the counts.
    mutating func enter(_ slot: Int, _ phase: WorkerPhase, _ cause: WorkerCause, _ effects: inout EffectBuffer) {
        let old = workers[slot].phase
        precondition(old != phase, "worker \(slot) enters \(phase) twice")
        if isStarting(old) { startingCount -= 1 }
        if isStarting(phase) { startingCount += 1 }
        if old == .ready { readyCount -= 1 }
        if phase == .ready { readyCount += 1 }
        measurePhase(slot, from: old, to: phase, cause)
        workers[slot].phase = phase
        workers[slot].cause = cause
        workers[slot].since = now
        effects.append(.publish(.worker(id(slot), phase, cause)))
    }

    mutating func vacate(_ slot: Int, _ cause: WorkerCause, _ effects: inout EffectBuffer) {
        disarmAll(slot)
        if workers[slot].isIdle { leaveIdle(slot) }
        workers[slot].replacing = false
        workers[slot].replaceWanted = false
        enter(slot, .empty, cause, &effects)
    }

    mutating func terminate(_ slot: Int, _ cause: WorkerCause, _ effects: inout EffectBuffer) {
        switch workers[slot].phase {
        case .starting, .ready, .draining:
            stopServing(slot)
            enter(slot, .terminating, cause, &effects)
            disarmAll(slot)
            arm(slot, .phase, at: now + policy.terminateGrace)
            effects.append(.terminate(id(slot)))
        case .empty, .spawning, .terminating, .killing: return
        }
    }

    mutating func kill(_ slot: Int, _ cause: WorkerCause, _ effects: inout EffectBuffer) {
        switch workers[slot].phase {
        case .starting, .ready, .draining, .terminating:
            stopServing(slot)
            enter(slot, .killing, cause, &effects)
            disarmAll(slot)
            counters.kills += 1
            effects.append(.kill(id(slot)))
        case .empty, .spawning, .killing: return
        }
    }

    /// Of a terminating one what was wrong in the first place tells more than that it did not hear SIGTERM either.
    mutating func hasten(_ slot: Int, _ cause: WorkerCause, _ effects: inout EffectBuffer) {
        let first = workers[slot].cause
        kill(slot, workers[slot].phase == .terminating && (first == .hung || first == .unhealthy) ? first : cause, &effects)
    }

    /// No more calls go there.
    mutating func stopServing(_ slot: Int) {
        workers[slot].leaving = true
        if workers[slot].isIdle { leaveIdle(slot) }
    }

    mutating func phaseTimer(_ slot: Int, _ effects: inout EffectBuffer) {
        switch workers[slot].phase {
        case .starting: kill(slot, .startTimeout, &effects)
        case .draining: terminate(slot, .graceOver, &effects)
        case .terminating: hasten(slot, .graceOver, &effects)
        case .empty, .spawning, .ready, .killing: return
        }
    }

    /// It broke the protocol or closed its socket: what it says next is not heard, its end is hastened.
    mutating func deafened(_ worker: WorkerID, _ cause: WorkerCause, _ effects: inout EffectBuffer) {
        guard let slot = live(worker), !workers[slot].deaf else { return }
        workers[slot].deaf = true
        switch workers[slot].phase {
        case .draining where cause == .socketClosed: return
        case .starting, .ready, .draining:
            kill(slot, cause, &effects)
            repinAll(slot, &effects)
            reconcile(&effects)
        case .empty, .spawning, .terminating, .killing: return
        }
    }

    // MARK: - Death

    func isPlausible(_ started: UInt64, _ slot: Int) -> Bool {
        started < workers[slot].next && started &+ 1 >= workers[slot].first
    }

    mutating func scribbled(_ slot: Int, _ effects: inout EffectBuffer) {
        effects.append(.publish(.pageScribbled(id(slot))))
        deafened(id(slot), .protocolFault, &effects)
    }

    mutating func exited(
        _ worker: WorkerID, started: UInt64, running: UInt64, _ exit: ExitCause, _ effects: inout EffectBuffer
    ) {
        guard let slot = live(worker) else { return }
        let phase = workers[slot].phase
        let cause = workers[slot].cause
        counters.deaths += 1
        let plausible = isPlausible(started, slot)
        if !plausible { effects.append(.publish(.pageScribbled(worker))) }
        let calls = workers[slot].calls
        let lived = now.since(workers[slot].readyAt)

        stopServing(slot)
        dropSessions(of: slot, &effects)
        let asked = workers[slot].endWanted
        // Who was let go but died on its own died of its call.
        if !asked || phase == .ready { blame(slot, running: plausible ? running : 0, &effects) }
        settleSent(slot, started: plausible ? started : .max, &effects)
        vacate(slot, phase == .ready || phase == .starting ? (isClean(exit) ? .exited : .crashed) : cause, &effects)

        switch phase {
        case .spawning, .starting:
            if !asked { startFailed(&effects) }
        case .draining:
            break
        case .ready, .terminating, .killing:
            // One that closed its socket while it started is no less a failed start.
            if workers[slot].readyAt == .zero {
                if !asked { startFailed(&effects) }
            } else if !asked {
                died(calls: calls, lived: lived, &effects)
            }
        case .empty: preconditionFailure("an empty slot \(slot) exited")
        }
        reconcile(&effects)
        serveQueue(&effects)
    }

    private func isClean(_ exit: ExitCause) -> Bool {
        switch exit {
        case .status(let status): return status == 0
        case .signal: return false
        }
    }

    /// The call that ran when the worker died, if it is still wanted.
    private func blame(_ slot: Int, running: UInt64, _ effects: inout EffectBuffer) {
        guard policy.quarantineDeaths > 0, running >= workers[slot].first, running < workers[slot].next else { return }
        let entry = sent[ring(slot, running)]
        guard let index = calls.live(entry.call), !calls.records[index].isTargeted else { return }
        effects.append(.blame(calls.id(index), method: MethodID(index: entry.method)))
    }

    /// What a dead worker held: begun calls end, or run again if they may; the others go back to the front.
    private mutating func settleSent(_ slot: Int, started: UInt64, _ effects: inout EffectBuffer) {
        var number = workers[slot].next
        while number > workers[slot].first {
            number -= 1
            let entry = sent[ring(slot, number)]
            sent[ring(slot, number)].call = .none
            guard let index = calls.live(entry.call) else { continue }
            let reason = calls.records[index].reason
            calls.records[index].reason = .none
            let began = number <= started
            switch reason {
            case .expired: finish(index, began ? .timeoutRunning : .timeoutWaiting, &effects)
            case .cancelled: finish(index, began ? .cancelledRunning : .cancelledWaiting, &effects)
            case .abandoned:
                abandon(index, &effects)
            case .none, .takenBack:
                if !began {
                    requeue(index, &effects)
                } else if calls.records[index].idempotent && Int(calls.records[index].attempts) + 1 < policy.maximumAttempts && !ending
                    && !isPinnedElsewhere(index)
                {
                    calls.records[index].attempts += 1
                    counters.retried += 1
                    effects.append(.publish(.callRetried(calls.id(index), attempt: Int(calls.records[index].attempts) + 1)))
                    requeue(index, &effects)
                } else {
                    finish(index, .workerLost, &effects)
                }
            }
        }
        if workers[slot].outstanding > 0 && workers[slot].phase == .ready { busyCount -= 1 }
        outstandingCalls -= workers[slot].outstanding
        outstandingWork &-= workers[slot].work
        workers[slot].first = workers[slot].next
        workers[slot].work = 0
        workers[slot].bound = 0
    }
}
