import PoolCore

/// What the shadow model knows of calls.
extension Simulation {
    // MARK: - Places

    mutating func wait(_ serial: Int) {
        calls[serial].place = .waiting
        waitingCalls += 1
        waitingBytes += UInt64(calls[serial].bytes)
        waitingBytesByIdentity[Int(calls[serial].identity)] += UInt64(calls[serial].bytes)
    }

    private mutating func waitNoMore(_ serial: Int) {
        waitingCalls -= 1
        waitingBytes -= UInt64(calls[serial].bytes)
        waitingBytesByIdentity[Int(calls[serial].identity)] -= UInt64(calls[serial].bytes)
    }

    private mutating func ended(_ serial: Int) {
        switch calls[serial].place {
        case .waiting: waitNoMore(serial)
        case .atWorker:
            if let slot = simulated(calls[serial].worker), let at = workers[slot].heldIndex(calls[serial].number) { workers[slot].held[at].isOver = true }
        case .ended: break
        }
        calls[serial].place = .ended
        serials[Int(calls[serial].id.index)] = -1
        let last = living.removeLast()
        if last != serial {
            living[calls[serial].position] = last
            calls[last].position = calls[serial].position
        }
    }

    // MARK: - Arrival

    mutating func admitted(_ call: CallID) throws(Violation) {
        guard let arrival = arrivalAtHand else { throw fail("admit without an arrival") }
        arrivalAtHand = nil
        guard live(call) == nil, Int(call.index) >= serials.count || serials[Int(call.index)] < 0 else { throw fail("admit gives \(call), which is in use") }
        guard !isShuttingDown, !isDraining || arrival.target != .none else { throw fail("a call is admitted while the pool drains") }
        guard circuit != .open else { throw fail("a call is admitted while the circuit is open") }
        if arrival.bodyHash != 0 && isQuarantined(arrival.bodyHash) { throw fail("a body in quarantine is admitted") }
        let budget = min(arrival.budget == 0 ? policy.defaultBudget : arrival.budget, policy.maximumBudget)
        let deadline = told.addingReportingOverflow(budget)
        let serial = calls.count
        calls.append(
            SimulatedCall(
                id: call, position: living.count, identity: arrival.identity.index, method: arrival.method.index, priority: arrival.priority,
                session: arrival.target == .none ? arrival.session : 0, bytes: arrival.bodyBytes, poison: poisonAtHand, idempotent: arrival.idempotent,
                deadline: deadline.overflow ? .max : deadline.partialValue, target: arrival.target))
        while serials.count <= Int(call.index) { serials.append(-1) }
        serials[Int(call.index)] = serial
        living.append(serial)
        wait(serial)
        admittedAtHand = serial
        if random.chance(world.cancelPercent) {
            agenda.add(random.chance(50) ? .cancel(call) : .abandon(call), at: now + span(4))
        }
    }

    /// No further call may wait, or be held at all: both bounds may have been lowered below what is in use.
    var isFull: Bool { waitingCalls >= policy.maximumQueuedCalls || living.count >= policy.callBound }

    mutating func refused(_ refusal: Refusal) throws(Violation) {
        guard let arrival = arrivalAtHand else { throw fail("refuse without an arrival") }
        arrivalAtHand = nil
        guard arrival.target == .none else { return try targetRefused(refusal, arrival) }
        counters.refused += 1
        totals[Tally(refusal.reason)] += 1
        tally.refusals[Int(refusal.reason.rawValue)] += 1
        let isRight: Bool
        switch refusal.reason {
        case .queueFull: isRight = isFull
        case .bytesFull:
            let bytes = UInt64(arrival.bodyBytes)
            isRight =
                waitingBytes + bytes > policy.maximumQueuedBytes
                || waitingBytesByIdentity[Int(arrival.identity.index)] + bytes > policy.maximumQueuedBytesPerIdentity
        case .wouldExpire: isRight = refusal.predictedWait > 0 || readyWorkers > 0
        case .draining: isRight = isDraining || isShuttingDown
        case .unavailable: isRight = wanted == 0 || circuit == .open || isUnavailable
        case .quarantined: isRight = arrival.bodyHash != 0 && isQuarantined(arrival.bodyHash)
        case .sessionLost: isRight = arrival.session != 0 && policy.affinity == .require
        case .sessionQuota:
            isRight =
                arrival.session != 0 && policy.affinity == .require
                && (sessions.count >= policy.maximumSessions
                    || sessionCount(of: arrival.identity.index) >= policy.maximumSessionsPerIdentity)
        }
        guard isRight else { throw fail("an arrival is refused as \(refusal.reason) without cause") }
        switch refusal.reason {
        case .queueFull, .bytesFull, .wouldExpire, .unavailable:
            guard refusal.retryAfter > 0 else { throw fail("refused as \(refusal.reason) without saying when to retry") }
        case .draining, .quarantined, .sessionLost, .sessionQuota: break
        }
        if refusal.reason == .sessionLost { sessions[SessionKey(identity: arrival.identity.index, session: arrival.session)] = nil }
        let isForItsSession = refusal.reason == .sessionLost || refusal.reason == .sessionQuota
        if mustServe && refusal.reason != .quarantined && !isForItsSession {
            throw fail("an arrival is refused as \(refusal.reason) while a worker is idle and nobody waits")
        }
    }

    // MARK: - At a worker

    mutating func sent(_ call: CallID, _ slot: Int, _ number: UInt64, _ deadline: UInt64) throws(Violation) {
        let serial = try alive(call, "send")
        let worker = id(slot)
        // What was decided before the page was read is still carried out; the call counts as begun like the others there.
        let isOldNews = workers[slot].isDeaf && workers[slot].scribbledDuring == UInt64(totals.events) && effectAt < workers[slot].scribbledAt
        guard !workers[slot].isDeaf || isOldNews, !workers[slot].isUnheard else { throw fail("send to \(worker), which has broken the protocol") }
        if isOldNews { calls[serial].countsAsBegun = true }
        guard calls[serial].place == .waiting else { throw fail("send of \(call), which is at a worker already") }
        guard number == workers[slot].lastNumber + 1 else { throw fail("call number \(number) follows \(workers[slot].lastNumber) on \(worker)") }
        guard workers[slot].outstanding < policy.window else { throw fail("\(worker) holds \(workers[slot].outstanding) calls and is sent another") }
        guard deadline > told else { throw fail("\(call) is expired and is sent") }
        guard deadline == calls[serial].deadline else { throw fail("deadline \(deadline) is not arrival + budget, \(calls[serial].deadline)") }
        guard calls[serial].losses == 0 || calls[serial].idempotent else { throw fail("\(call) has begun and is sent again, but it is not idempotent") }
        guard calls[serial].losses == calls[serial].lossesForgiven else { throw fail("\(call) was lost and is sent again without being retried") }
        guard circuit != .open else { throw fail("\(call) is sent while the circuit is open") }
        if circuit == .halfOpen {
            if let probe, calls[probe].place == .atWorker { throw fail("\(call) is sent while the circuit is half open and \(calls[probe].id) tries it") }
            probe = serial
        }
        if calls[serial].target != .none { try checkTarget(serial, worker) } else { try checkOrder(serial) }
        try checkSession(serial, worker)
        waitNoMore(serial)
        calls[serial].place = .atWorker
        calls[serial].worker = worker
        calls[serial].number = number
        calls[serial].sends += 1
        workers[slot].lastNumber = number
        workers[slot].held.append(SimulatedWorker.Held(serial: serial))
        guard workers[slot].life == .serving, !workers[slot].isDying else { return }
        workers[slot].inbox.append(SimulatedWorker.Inbound(number: number, serial: serial, deadline: deadline))
        work(slot)
    }

    /// First come, first served among the calls of one identity and priority that were never sent.
    private func checkOrder(_ serial: Int) throws(Violation) {
        guard policy.overload != .newestFirst, policy.affinity == .none, calls[serial].sends == 0, serial >= orderedFrom else { return }
        for other in living
        where other < serial && other >= orderedFrom && calls[other].place == .waiting && calls[other].sends == 0
            && calls[other].identity == calls[serial].identity && calls[other].priority == calls[serial].priority && calls[other].target == .none
        {
            throw fail("\(calls[serial].id) is served before \(calls[other].id), which came earlier")
        }
    }

    func sessionCount(of identity: UInt16) -> Int {
        var count = 0
        for key in sessions.keys where key.identity == identity { count += 1 }
        return count
    }

    /// Affinity `require`: a session stays with its worker as long as that serves.
    private mutating func checkSession(_ serial: Int, _ worker: WorkerID) throws(Violation) {
        guard policy.affinity != .none, calls[serial].session != 0 else { return }
        let key = SessionKey(identity: calls[serial].identity, session: calls[serial].session)
        if policy.affinity == .require, let bound = sessions[key], bound.isFirm, bound.worker != worker {
            let isOver = policy.sessionTimeToLive > 0 && told >= bound.lastUsed &+ policy.sessionTimeToLive
            if !isOver, let slot = simulated(bound.worker), workers[slot].phase == .ready, !workers[slot].mayLeave, !workers[slot].isDeaf,
                !workers[slot].isUnheard, policy.maximumAge == 0, policy.maximumCalls == 0
            {
                throw fail("session \(key.session) of identity \(key.identity) belongs to \(bound.worker) and is served by \(worker)")
            }
        }
        sessions[key] = Session(worker: worker, lastUsed: told, isFirm: true)
    }

    /// The application's code is entered.
    mutating func noteBegun(_ next: SimulatedWorker.Inbound, _ slot: Int) {
        let serial = next.serial
        calls[serial].runs += 1
        guard calls[serial].place == .atWorker, calls[serial].worker == id(slot), calls[serial].number == next.number else {
            fault = "\(calls[serial].id) begins on \(id(slot)) after poold has ended it or given it to another"
            return
        }
        if calls[serial].runs > 1 && !calls[serial].idempotent { fault = "\(calls[serial].id) runs twice" }
    }

    /// A reply is read, before the machine hears of it: it is no longer outstanding. The call, if it is still at the worker.
    mutating func noteReply(_ slot: Int, _ reply: SimulatedWorker.Reply) -> Int? {
        guard !workers[slot].isDeaf else { return nil }
        guard reply.number == workers[slot].firstUnanswered, !workers[slot].held.isEmpty else {
            workers[slot].isDeaf = true
            workers[slot].isFaulty = true
            return nil
        }
        let held = workers[slot].held.removeFirst()
        workers[slot].firstUnanswered += 1
        switch reply.kind {
        case .result, .error, .interrupted: tally.ran[Int(calls[held.serial].method)] += 1
        case .unrunRevoked, .unrunExpired: break
        }
        workers[slot].unansweredPings = 0
        guard !held.isOver else { return nil }
        switch reply.kind {
        case .result, .error, .interrupted: return held.serial
        case .unrunRevoked, .unrunExpired:
            wait(held.serial)
            return nil
        }
    }

    // MARK: - Ends

    mutating func delivered(_ call: CallID) throws(Violation) {
        let serial = try alive(call, "deliver")
        guard let hand = replyAtHand, calls[serial].place == .atWorker, calls[serial].worker == hand.worker, calls[serial].number == hand.number else {
            throw fail("deliver of \(call), which is not what the reply at hand answers")
        }
        switch hand.kind {
        case .result: counters.results += 1
        case .error, .interrupted: counters.errors += 1
        case .unrunRevoked, .unrunExpired: throw fail("\(call) did not run and is delivered")
        }
        totals[.delivered] += 1
        if calls[serial].target == .none { tally.delivered[Int(calls[serial].method)] += 1 }
        ended(serial)
    }

    mutating func released(_ call: CallID) throws(Violation) {
        let serial = try alive(call, "release")
        guard calls[serial].isAbandoned else { throw fail("release of \(call), whose caller waits") }
        counters.abandoned += 1
        totals[.released] += 1
        noteOverrun(serial)
        ended(serial)
    }

    /// It ends while it runs, as far as poold can know.
    private mutating func noteOverrun(_ serial: Int) {
        guard calls[serial].place == .atWorker, let slot = simulated(calls[serial].worker), let at = workers[slot].heldIndex(calls[serial].number) else {
            return
        }
        workers[slot].held[at].overranAt = max(1, told)
        workers[slot].held[at].patience = policy.hangAfter
        if policy.overrun == .replace { workers[slot].mayLeave = true }
    }

    mutating func finished(_ call: CallID, _ outcome: Outcome) throws(Violation) {
        let serial = try alive(call, "finish")
        let record = calls[serial]
        totals[Tally(outcome)] += 1
        if record.target == .none { tallyEnd(outcome, record.method) }
        if outcome.began {
            var mayHaveBegun = record.losses > 0 || record.countsAsBegun
            if record.place == .atWorker, let slot = simulated(record.worker), workers[slot].started >= record.number { mayHaveBegun = true }
            guard mayHaveBegun else { throw fail("\(call) never began but ends as \(outcome)") }
        } else {
            guard record.losses == 0, record.place == .waiting else { throw fail("\(call) may have begun but ends as \(outcome)") }
            guard record.runs == 0 else { throw fail("\(call) has run but ends as \(outcome)") }
        }
        let isRight: Bool
        switch outcome {
        case .timeoutWaiting, .timeoutRunning:
            counters.timeouts += 1
            isRight =
                record.deadline <= told || replyAtHand?.kind == .unrunExpired
                // It waits, and could not end in time by what was measured.
                || (record.place == .waiting && record.deadline <= told.addingReportingOverflow(longestRun[Int(record.method)]).partialValue)
        case .cancelledWaiting, .cancelledRunning:
            counters.cancelled += 1
            isRight = record.isCancelled
        case .workerLost:
            counters.workerLost += 1
            isRight = record.losses > 0
        case .draining:
            counters.dropped += 1
            isRight = isShuttingDown && told >= shutdownAt
        case .shed:
            counters.dropped += 1
            isRight = policy.overload == .codel
        case .unavailable:
            counters.dropped += 1
            isRight = wanted == 0 || isUnavailable
        case .sessionLost:
            counters.dropped += 1
            isRight = record.target == .none ? record.session != 0 && policy.affinity == .require : mayBeLost(record.target)
        }
        guard isRight else { throw fail("\(call) ends as \(outcome) without cause") }
        if outcome == .timeoutRunning || outcome == .cancelledRunning { noteOverrun(serial) }
        ended(serial)
    }

    // MARK: - Death

    /// Before the machine hears of it: what the worker held has begun, or waits again.
    mutating func noteExit(_ slot: Int, started: UInt64, running: UInt64) {
        counters.deaths += 1
        let isPlausible = started <= workers[slot].lastNumber && started &+ 1 >= workers[slot].firstUnanswered
        for (at, held) in workers[slot].held.enumerated() where !held.isOver {
            let number = workers[slot].firstUnanswered + UInt64(at)
            if !isPlausible || number <= started { calls[held.serial].losses += 1 }
            wait(held.serial)
        }
        workers[slot].held = []
    }

    /// It dies on its own while it runs a call that is still wanted.
    func expectsBlame(_ slot: Int, started: UInt64, running: UInt64) -> Bool {
        let worker = workers[slot]
        guard policy.quarantineDeaths > 0, worker.phase == .ready else { return false }
        guard running <= started, started <= worker.lastNumber, let at = worker.heldIndex(running) else { return false }
        return !worker.held[at].isOver && calls[worker.held[at].serial].target == .none
    }

    mutating func blamed(_ call: CallID, _ method: MethodID) throws(Violation) {
        let serial = try alive(call, "blame")
        guard let dead = exitAtHand, calls[serial].worker == dead.worker, calls[serial].number == dead.running else {
            throw fail("blame of \(call), which did not run when its worker died")
        }
        guard calls[serial].method == method.index else { throw fail("blame of \(call) with the wrong method") }
        blamesAtHand += 1
        let hash = calls[serial].poison != 0 ? calls[serial].poison : 10_000 + UInt64(serial)
        if random.chance(50) {
            feed(.callBlamed(method: method, hash: hash))
        } else {
            agenda.add(.blamed(method, hash), at: now + span(-4))
        }
    }

    /// As the machine hears of it.
    mutating func noteBlame(_ event: Event) {
        guard case .callBlamed(_, let hash) = event, policy.quarantineDeaths > 0 else { return }
        suspects = suspects.filter { told - min(told, $0.value.last) <= policy.quarantineFor }
        suspects[hash] = ((suspects[hash]?.deaths ?? 0) + 1, told)
    }

    func isQuarantined(_ hash: UInt64) -> Bool {
        guard policy.quarantineDeaths > 0, let suspect = suspects[hash], suspect.deaths >= policy.quarantineDeaths else { return false }
        return told - min(told, suspect.last) <= policy.quarantineFor
    }

    var quarantinedHash: UInt64? {
        for hash in suspects.keys where isQuarantined(hash) { return hash }
        return nil
    }
}
