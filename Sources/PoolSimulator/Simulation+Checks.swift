import PoolCore

/// The shadow model: what poold must never do, whatever the world does.
extension Simulation {
    func live(_ call: CallID) -> Int? {
        let index = Int(call.index)
        guard index < serials.count, serials[index] >= 0, calls[serials[index]].id == call else { return nil }
        return serials[index]
    }

    private func alive(_ call: CallID, _ what: String) throws(Violation) -> Int {
        guard let serial = live(call) else { throw fail("\(what) names a call that has ended or never was: \(call)") }
        return serial
    }

    private func present(_ worker: WorkerID, _ what: String) throws(Violation) -> Int {
        guard let slot = simulated(worker) else { throw fail("\(what) names a worker of an old generation or none: \(worker)") }
        return slot
    }

    mutating func take(_ effect: Effect, isFirst: Bool) throws(Violation) {
        if arrivalAtHand != nil && isFirst {
            switch effect {
            case .admit(let call): try admitted(call)
            case .refuse(let refusal): try refused(refusal)
            default: throw fail("the first effect of an arrival is \(effect)")
            }
            return
        }
        switch effect {
        case .admit, .refuse: throw fail("\(effect) without an arrival")
        case .send(let call, let worker, let number, let deadline): try sent(call, worker, number, deadline.nanoseconds)
        case .deliver(let call):
            let serial = try alive(call, "deliver")
            guard let hand = replyAtHand, calls[serial].worker == hand.worker, calls[serial].number == hand.number, calls[serial].place == .atWorker else {
                throw fail("deliver of \(call), which is not what the reply at hand answers")
            }
            replyAtHand = nil
            count(\.results)
            ended(serial)
        case .finish(let call, let outcome): try finished(call, outcome)
        case .release(let call):
            let serial = try alive(call, "release")
            guard calls[serial].isAbandoned else { throw fail("release of \(call), whose caller waits") }
            counted.abandoned += 1
            if calls[serial].begun > 0, let slot = simulated(calls[serial].worker) { workers[slot].mayBeKilled = true }
            ended(serial)
        case .blame(let call, let method):
            let serial = try alive(call, "blame")
            guard let dead = exitedOutstanding, calls[serial].worker == dead.worker, calls[serial].number == dead.running else {
                throw fail("blame of \(call), which did not run when its worker died")
            }
            let hash = calls[serial].isPoison ? calls[serial].hash : 100 + UInt64(serial)
            agenda.add(.blamed(method, hash), at: now)
        case .revoke(let worker, let number, let interrupt): try revoke(worker, number, number, interrupt)
        case .takeBack(let worker, let first, let last):
            count(\.takenBack)
            try revoke(worker, first, last, false)
        case .spawn(let worker): try spawn(worker)
        case .ping(let worker):
            let slot = try present(worker, "ping")
            if workers[slot].life == .serving && !workers[slot].isStalled && !workers[slot].isDying && (isCalm || !random.perMille(world.stallPerMille * 5)) {
                agenda.add(.pong(worker), at: now + random.anySpan(maximumBits: isCalm ? 16 : 24))
            }
        case .drainWorker(let worker):
            let slot = try present(worker, "drainWorker")
            guard workers[slot].outstanding == 0 else { throw fail("worker \(worker) is drained while it holds \(workers[slot].outstanding) calls") }
            workers[slot].isReadyToPoold = false
            workers[slot].isRetired = true
            workers[slot].isDraining = true
            if workers[slot].running == 0 && !workers[slot].isStalled { end(worker, .status(0), after: random.anySpan(maximumBits: isCalm ? 20 : 36)) }
        case .terminate(let worker):
            let slot = try mayEnd(worker, "terminate")
            if !workers[slot].ignoresTerm && (workers[slot].running == 0 || random.chance(50)) {
                end(worker, .signal(15), after: random.anySpan(maximumBits: 30))
            }
        case .kill(let worker):
            _ = try mayEnd(worker, "kill")
            end(worker, .signal(9), after: random.anySpan(maximumBits: 20))
        case .measure(let worker):
            _ = try present(worker, "measure")
            agenda.add(.measured(worker, random.next() % (isCalm ? 1 << 20 : 2 << 20)), at: now)
        case .publish(let notice): try published(notice)
        case .stopped:
            stoppedCount += 1
            guard isShuttingDown, stoppedCount == 1 else { throw fail("stopped \(stoppedCount) times") }
            guard liveCalls == 0 else { throw fail("stopped with \(liveCalls) calls alive") }
            for slot in workers.indices where workers[slot].life != .none { throw fail("stopped while worker \(slot) lives") }
        }
    }

    // MARK: - Calls

    private mutating func admitted(_ call: CallID) throws(Violation) {
        guard let arrival = arrivalAtHand else { throw fail("admit without an arrival") }
        arrivalAtHand = nil
        guard live(call) == nil else { throw fail("admit gives \(call), which is in use") }
        guard !isShuttingDown else { throw fail("a call is admitted after shutdown") }
        if arrival.bodyHash != 0, let suspect = suspects[arrival.bodyHash], world.policy.quarantineDeaths > 0, suspect.deaths >= world.policy.quarantineDeaths,
            now - min(now, suspect.last) <= world.policy.quarantineFor
        {
            throw fail("a call in quarantine was admitted")
        }
        let budget = min(arrival.budget == 0 ? world.policy.defaultBudget : arrival.budget, world.policy.maximumBudget)
        let latest = now.addingReportingOverflow(budget)
        calls.append(
            SimulatedCall(
                id: call, place: .waiting, deadline: latest.overflow ? .max : latest.partialValue, idempotent: arrival.idempotent, isPoison: poisonAtHand != 0,
                session: arrival.session, identity: arrival.identity.index, bytes: arrival.bodyBytes, hash: poisonAtHand))
        while serials.count <= Int(call.index) { serials.append(-1) }
        serials[Int(call.index)] = calls.count - 1
        liveCalls += 1
        if random.chance(world.cancelPercent) {
            agenda.add(random.chance(50) ? .cancel(call) : .abandon(call), at: now + random.anySpan(maximumBits: 30))
        }
    }

    private mutating func refused(_ refusal: Refusal) throws(Violation) {
        guard let arrival = arrivalAtHand else { throw fail("refuse without an arrival") }
        arrivalAtHand = nil
        counted.refused += 1
        count(\.refused)
        if refusal.reason == .quarantined {
            count(\.quarantined)
            guard arrival.bodyHash != 0, let suspect = suspects[arrival.bodyHash], suspect.deaths >= world.policy.quarantineDeaths else {
                throw fail("a call that killed nobody is refused as quarantined")
            }
        }
    }

    private mutating func sent(_ call: CallID, _ worker: WorkerID, _ number: UInt64, _ deadline: UInt64) throws(Violation) {
        let serial = try alive(call, "send")
        let slot = try present(worker, "send")
        guard workers[slot].isReadyToPoold, !workers[slot].isRetired else { throw fail("send to \(worker), which does not serve") }
        guard calls[serial].place == .waiting else { throw fail("send of \(call), which is at a worker already") }
        guard number == workers[slot].lastNumber + 1 else { throw fail("call number \(number) follows \(workers[slot].lastNumber) on \(worker)") }
        guard workers[slot].outstanding < world.policy.window else { throw fail("\(worker) holds more than the window") }
        // `now` may have been told a millisecond late.
        guard deadline > now - min(now, 1_000_000) else { throw fail("an expired call is sent: \(deadline) at \(now)") }
        guard deadline <= calls[serial].deadline, deadline + 1_000_000 >= calls[serial].deadline else {
            throw fail("deadline \(deadline) is not arrival + budget \(calls[serial].deadline)")
        }
        guard calls[serial].begun == 0 || calls[serial].idempotent else { throw fail("\(call) has begun and is sent again, but it is not idempotent") }
        guard calls[serial].begun < world.policy.maximumAttempts else { throw fail("\(call) is tried more than \(world.policy.maximumAttempts) times") }
        calls[serial].place = .atWorker
        calls[serial].worker = worker
        calls[serial].number = number
        workers[slot].lastNumber = number
        guard workers[slot].life == .serving, !workers[slot].isDying else { return }
        workers[slot].inbox.append(SimulatedWorker.Inbound(number: number, call: call, deadline: deadline, isPoison: calls[serial].isPoison))
        if workers[slot].running == 0 { work(slot) }
    }

    /// The application's code is entered.
    mutating func noteBegun(_ call: CallID, _ slot: Int) {
        guard let serial = live(call), calls[serial].place == .atWorker, calls[serial].worker == id(slot) else {
            beganAfterItsEnd = "\(call) begins on \(id(slot)) after poold has ended it unbegun or given it elsewhere"
            return
        }
        calls[serial].begun += 1
        if calls[serial].begun > 1 && !calls[serial].idempotent { beganAfterItsEnd = "\(call) runs twice" }
    }

    private mutating func finished(_ call: CallID, _ outcome: Outcome) throws(Violation) {
        let serial = try alive(call, "finish")
        if !outcome.began && calls[serial].begun > 0 { throw fail("\(call) has begun but ends as \(outcome)") }
        if outcome.began && calls[serial].number == 0 { throw fail("\(call) was never sent but ends as \(outcome)") }
        switch outcome {
        case .timeoutWaiting, .timeoutRunning:
            counted.timeouts += 1
            count(\.timeouts)
            guard outcome == .timeoutWaiting || calls[serial].deadline <= now + 1_000_000 else { throw fail("\(call) times out before its deadline") }
        case .cancelledWaiting, .cancelledRunning:
            counted.cancelled += 1
            count(\.cancelled)
            guard calls[serial].isCancelled else { throw fail("\(call) ends as cancelled, but nobody cancelled it") }
        case .workerLost:
            counted.workerLost += 1
            count(\.lost)
        case .draining, .shed, .unavailable, .sessionLost: counted.dropped += 1
        }
        if outcome.began, calls[serial].place == .atWorker, let slot = simulated(calls[serial].worker) { workers[slot].mayBeKilled = true }
        ended(serial)
    }

    private mutating func ended(_ serial: Int) {
        serials[Int(calls[serial].id.index)] = -1
        calls[serial].place = .none
        liveCalls -= 1
    }

    // MARK: - Workers

    private mutating func revoke(_ worker: WorkerID, _ first: UInt64, _ last: UInt64, _ interrupt: Bool) throws(Violation) {
        let slot = try present(worker, "revoke")
        guard first >= 1, last <= workers[slot].lastNumber, last - first < UInt64(PoolPolicy.maximumWindow) else {
            throw fail("revoke of \(first)...\(last) on \(worker), which was sent \(workers[slot].lastNumber)")
        }
        for number in first...last { workers[slot].revoked.append(number) }
        if interrupt && workers[slot].running == first && !workers[slot].isStubborn {
            agenda.add(.callEnds(worker, number: first, kind: .interrupted), at: now + random.anySpan(maximumBits: 20))
        }
        var started = workers[slot].started
        if !isCalm && random.perMille(world.misbehavePerMille) {
            started = random.next()
            workers[slot].mayBeKilled = true
        }
        // What the model must know of what is not begun: it goes back to waiting, or ends; `send` will tell which.
        if started == workers[slot].started {
            for serial in calls.indices
            where calls[serial].place == .atWorker && calls[serial].worker == worker && calls[serial].number >= first && calls[serial].number <= last
                && calls[serial].number > started
            {
                calls[serial].place = .waiting
            }
        }
        feed(.workerRevoked(worker, first: first, last: last, started: started))
    }

    private mutating func spawn(_ worker: WorkerID) throws(Violation) {
        let slot = Int(worker.slot)
        guard slot < workers.count else { throw fail("spawn in slot \(slot) of \(workers.count)") }
        guard workers[slot].life == .none else { throw fail("spawn in slot \(slot), which is in use") }
        guard worker.generation == workers[slot].generation &+ 1 else { throw fail("generation \(worker.generation) follows \(workers[slot].generation)") }
        guard stoppedCount == 0, !isEnding else { throw fail("spawn after the end") }
        var starting = 1
        var occupied = 1
        for other in workers where other.life != .none {
            occupied += 1
            if (other.life == .asked || other.life == .booting) && !other.isRetired { starting += 1 }
        }
        guard starting <= world.policy.startingAtOnce else { throw fail("\(starting) workers start at once, \(world.policy.startingAtOnce) may") }
        guard occupied <= world.policy.maximumWorkers + world.policy.surge else {
            throw fail("\(occupied) processes, \(world.policy.maximumWorkers) and \(world.policy.surge) are allowed")
        }
        workers[slot] = SimulatedWorker()
        workers[slot].generation = worker.generation
        workers[slot].life = .asked
        workers[slot].ignoresTerm = random.chance(world.ignoreTermPercent)
        workers[slot].isStalled = false
        if !isCalm && random.chance(world.spawnFailPercent) {
            agenda.add(.spawnFailed(worker), at: now + random.anySpan(maximumBits: 24))
        } else {
            agenda.add(.spawned(worker), at: now + random.anySpan(maximumBits: 24))
        }
    }

    private mutating func mayEnd(_ worker: WorkerID, _ what: String) throws(Violation) -> Int {
        let slot = try present(worker, what)
        if workers[slot].isReadyToPoold && workers[slot].outstanding > 0 && !workers[slot].mayBeKilled && !isShuttingDown {
            throw fail("\(what) of \(worker), which is busy and has done no wrong")
        }
        workers[slot].isReadyToPoold = false
        workers[slot].isRetired = true
        return slot
    }

    private mutating func published(_ notice: Notice) throws(Violation) {
        switch notice {
        case .callRetried(let call, _):
            count(\.retried)
            let serial = try alive(call, "callRetried")
            guard calls[serial].idempotent else { throw fail("\(call) is retried but not idempotent") }
        case .worker(let worker, let phase, _):
            guard let slot = simulated(worker) else { return }
            if phase == .terminating || phase == .killing || phase == .draining { workers[slot].isReadyToPoold = false }
        case .backingOff: count(\.failedStarts)
        case .poolHealth, .circuit, .quarantined, .scaled, .pageScribbled, .takenBack, .killWithheld: return
        }
    }

    // MARK: - After each event, and at the end

    mutating func checkLimits() throws(Violation) {
        if let text = beganAfterItsEnd { throw fail(text) }
        exitedOutstanding = nil
        guard totalsEvents % 16 == 0 else { return }
        let status = machine.status(now: Instant(nanoseconds: now))
        let slots = world.policy.maximumWorkers + world.policy.surge
        guard status.queuedCalls <= world.policy.maximumQueuedCalls + slots * world.policy.window else { throw fail("\(status.queuedCalls) calls wait") }
        guard status.workers.count <= slots else { throw fail("\(status.workers.count) workers") }
        guard status.sessions <= world.policy.maximumSessions else { throw fail("\(status.sessions) sessions, \(world.policy.maximumSessions) may be") }
        guard status.outstanding <= slots * world.policy.window else { throw fail("\(status.outstanding) calls at workers") }
    }

    mutating func checkEnd() throws(Violation) {
        guard liveCalls == 0 else { throw fail("\(liveCalls) calls never ended") }
        let counters = machine.status(now: Instant(nanoseconds: now)).counters
        guard counters.arrived == counted.arrived, counters.refused == counted.refused, counters.timeouts == counted.timeouts,
            counters.cancelled == counted.cancelled,
            counters.abandoned == counted.abandoned, counters.workerLost == counted.workerLost, counters.dropped == counted.dropped,
            counters.results + counters.errors == UInt64(totalsResults)
        else { throw fail("the counters \(counters) are not what happened: \(counted), \(totalsResults) delivered") }
        let ends =
            counters.refused + counters.results + counters.errors + counters.timeouts + counters.cancelled + counters.abandoned + counters.workerLost
            + counters.dropped
        guard ends == counters.arrived else { throw fail("\(counters.arrived) calls arrived, \(ends) ended") }
    }

    private var totalsEvents: Int { totals.events }
    private var totalsResults: Int { totals.results }
}
