import PoolCore

/// The shadow model: each effect is carried out in the world if poold may do that, and is a violation otherwise.
extension Simulation {
    func live(_ call: CallID) -> Int? {
        let index = Int(call.index)
        guard index < serials.count, serials[index] >= 0, calls[serials[index]].id == call else { return nil }
        return serials[index]
    }

    func alive(_ call: CallID, _ what: String) throws(Violation) -> Int {
        guard let serial = live(call) else { throw fail("\(what) names a call that has ended or never was: \(call)") }
        return serial
    }

    private func present(_ worker: WorkerID, _ what: String) throws(Violation) -> Int {
        guard let slot = simulated(worker) else { throw fail("\(what) names a worker of another generation or none: \(worker)") }
        return slot
    }

    private func present(_ worker: WorkerID, in phase: WorkerPhase, _ what: String) throws(Violation) -> Int {
        let slot = try present(worker, what)
        guard workers[slot].phase == phase else { throw fail("\(what) of \(worker), which is \(workers[slot].phase)") }
        return slot
    }

    mutating func take(_ effect: Effect, isFirst: Bool) throws(Violation) {
        if arrivalAtHand != nil && isFirst {
            switch effect {
            case .admit(let call): return try admitted(call)
            case .refuse(let refusal): return try refused(refusal)
            default: throw fail("the first effect of an arrival is \(effect)")
            }
        }
        let counted = counters
        let isCounted = !endsTargeted(effect)
        defer { if !isCounted { counters = counted } }
        if isStopped && effect != .publish(.poolHealth(.stopped)) { throw fail("\(effect) after the end") }
        switch effect {
        case .admit, .refuse: throw fail("\(effect) without an arrival")
        case .send(let call, let worker, let number, let deadline):
            totals[.sends] += 1
            let slot = try present(worker, in: .ready, "send")
            try sent(call, slot, number, deadline.nanoseconds)
        case .deliver(let call): try delivered(call)
        case .finish(let call, let outcome): try finished(call, outcome)
        case .release(let call): try released(call)
        case .blame(let call, let method): try blamed(call, method)
        case .revoke(let worker, let number, let interrupt): try revoke(try present(worker, "revoke"), number, number, interrupt: interrupt)
        case .takeBack(let worker, let first, let last): try revoke(try present(worker, "takeBack"), first, last, interrupt: false)
        case .spawn(let worker): try spawn(worker)
        case .ping(let worker):
            totals[.pings] += 1
            let slot = try present(worker, in: .ready, "ping")
            workers[slot].unansweredPings += 1
            receivePing(slot)
        case .drainWorker(let worker):
            totals[.workerDrains] += 1
            let slot = try present(worker, in: .draining, "drainWorker")
            guard workers[slot].outstanding == 0 else { throw fail("\(worker) is drained while it holds \(workers[slot].outstanding) calls") }
            receiveDrain(slot)
        case .terminate(let worker):
            totals[.terminates] += 1
            receiveTerminate(try present(worker, in: .terminating, "terminate"))
        case .kill(let worker):
            totals[.workerKills] += 1
            receiveKill(try present(worker, in: .killing, "kill"))
        case .measure(let worker):
            totals[.measures] += 1
            let slot = try present(worker, in: .ready, "measure")
            let bytes = random.next() % (isCalm ? 1 << 20 : 2 << 20)
            if random.chance(50) {
                workers[slot].mayLeave = true
                feed(.workerMeasured(worker, privateBytes: bytes))
            } else {
                agenda.add(.measured(worker, bytes), at: now + span(-4))
            }
        case .publish(let notice): try published(notice)
        case .stopped:
            guard isShuttingDown else { throw fail("stopped without a shutdown") }
            guard living.isEmpty else { throw fail("stopped with \(living.count) calls alive") }
            for slot in workers.indices where workers[slot].life != .none { throw fail("stopped while \(id(slot)) lives") }
            // The health that follows in the same event is its last word.
            isStopped = true
        }
    }

    // MARK: - Revocation

    /// Stored, fenced, `started` read: what has not begun by then never will.
    private mutating func revoke(_ slot: Int, _ first: UInt64, _ last: UInt64, interrupt: Bool) throws(Violation) {
        let worker = id(slot)
        guard first >= workers[slot].firstUnanswered, first <= last, last <= workers[slot].lastNumber else {
            throw fail(
                "calls \(first)...\(last) of \(worker) are revoked; it holds \(workers[slot].firstUnanswered)...\(workers[slot].lastNumber)")
        }
        for number in first...last { workers[slot].revoked.append(number) }
        if interrupt { receiveInterrupt(slot, first) }
        var started = workers[slot].started
        if strikes(perMille: world.faults.scribblePerMille) {
            totals[.scribbledPages] += 1
            started = scribbledNumber(slot)
            workers[slot].isFaulty = true
            workers[slot].isDeaf = true
            workers[slot].scribbledDuring = UInt64(totals.events)
            workers[slot].scribbledAt = buffer.effects.count
            for held in workers[slot].held where !held.isOver { calls[held.serial].countsAsBegun = true }
            for number in first...last {
                guard let at = workers[slot].heldIndex(number) else { continue }
                workers[slot].held[at].believedDuring = workers[slot].scribbledDuring
                workers[slot].held[at].believedAt = workers[slot].scribbledAt
            }
        } else {
            for number in first...last where number > started { takeFrom(slot, number) }
        }
        feed(.workerRevoked(worker, first: first, last: last, started: started))
    }

    /// The call with this number is no longer at the worker: it waits, or ends before the event does.
    private mutating func takeFrom(_ slot: Int, _ number: UInt64) {
        guard let at = workers[slot].heldIndex(number), !workers[slot].held[at].isOver else { return }
        if workers[slot].held[at].believedDuring == UInt64(totals.events) && effectAt < workers[slot].held[at].believedAt { return }
        workers[slot].held[at].isOver = true
        // It does not even take calls.
        if workers[slot].started < workers[slot].firstUnanswered {
            workers[slot].held[at].overranAt = max(1, told)
            workers[slot].held[at].patience = policy.hangAfter
        }
        wait(workers[slot].held[at].serial)
    }

    // MARK: - Birth

    private mutating func spawn(_ worker: WorkerID) throws(Violation) {
        totals[.spawns] += 1
        let slot = Int(worker.slot)
        guard slot < workers.count else { throw fail("spawn in slot \(slot) of \(workers.count)") }
        guard workers[slot].life == .none, workers[slot].generation == worker.generation, workers[slot].phase == .spawning else {
            throw fail("spawn of \(worker) in a slot that is in use")
        }
        guard told >= backOffUntil else { throw fail("spawn before the back-off is over, at \(backOffUntil)") }
        workers[slot].life = .asked
        let ignores = random.chance(world.faults.ignoreTermPercent)
        // Where KILL may be put off for ever, who is started in the calm must at least heed TERM.
        workers[slot].ignoresTerm = ignores && !(isCalm && hasAbsurdPolicy)
        let delay = span(random.chance(5) ? 8 : -2)
        if strikes(percent: world.faults.spawnFailPercent) {
            agenda.add(.spawnFailed(worker), at: now + delay)
        } else {
            agenda.add(.spawned(worker), at: now + delay)
        }
    }
}
