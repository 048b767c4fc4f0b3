extension PoolMachine {
    // MARK: - Arrival

    mutating func arrive(_ arrival: Arrival, _ effects: inout EffectBuffer) {
        guard arrival.target == .none else { return arriveForTarget(arrival, &effects) }
        counters.arrived += 1
        let method = arrival.method.index
        let identity = min(arrival.identity.index, UInt16(PoolPolicy.maximumIdentities - 1))
        queue.prepare(identity: identity)
        var isProbe = false
        if let refusal = refusal(of: arrival, identity: identity, &isProbe) {
            counters.refused += 1
            metrics.note(refusal.reason)
            effects.append(.refuse(refusal))
            return
        }

        let index = enroll(arrival, identity: identity, method: method)
        calls.records[index].isProbe = isProbe
        effects.append(.admit(calls.id(index)))
        place(index, &effects)
    }

    /// Into the table, its deadline armed.
    @inline(__always) mutating func enroll(_ arrival: Arrival, identity: UInt16, method: UInt16) -> Int {
        let index = calls.allocate()
        timers.grow(to: node(call: index) + 1)
        let budget = min(arrival.budget == 0 ? policy.defaultBudget : arrival.budget, policy.maximumBudget)
        let deadline = now + budget
        calls.records[index].place = .queued
        calls.records[index].bodyBytes = arrival.bodyBytes
        calls.records[index].arrived = now
        calls.records[index].deadline = deadline
        calls.records[index].session = arrival.session
        calls.records[index].cost = times.cost(method)
        calls.records[index].identity = identity
        calls.records[index].method = method
        calls.records[index].priority = arrival.priority
        calls.records[index].attempts = 0
        calls.records[index].idempotent = arrival.idempotent
        calls.records[index].isTargeted = false
        calls.records[index].isProbe = false
        timers.arm(node(call: index), at: deadline)
        return index
    }

    /// Why this call is not taken, if it is not. `isProbe`: it is although its method takes longer than its budget, as far as is known.
    private mutating func refusal(of arrival: Arrival, identity: UInt16, _ isProbe: inout Bool) -> Refusal? {
        if draining || shuttingDown { return refuse(.draining) }
        // Only an operator changes that.
        if wanted == 0 { return refuse(.unavailable, retryAfter: 1_000_000_000) }
        if health == .unavailable {
            return refuse(.unavailable, retryAfter: max(backOffUntil.since(now), 1_000_000))
        }
        if circuit == .open { return refuse(.unavailable, retryAfter: max(circuitUntil.since(now), 1_000_000)) }
        if arrival.bodyHash != 0 && isQuarantined(arrival.bodyHash) { return refuse(.quarantined) }
        if let reason = sessionRefusal(arrival, identity: identity) { return refuse(reason) }
        // The limits are of what waits.
        if maySend && !calls.isFull && isSoughtByNone(workerFor: arrival, identity: identity) { return nil }
        let wait = predictedWait(identity: identity, priority: arrival.priority)
        if queue.count + pinnedCalls >= policy.maximumQueuedCalls || calls.isFull {
            return refuse(.queueFull, wait: wait, retryAfter: max(wait / 2, 1_000_000))
        }
        let bytes = UInt64(arrival.bodyBytes)
        if queue.bytes &+ bytes > policy.maximumQueuedBytes || queue.bytes(of: identity) &+ bytes > policy.maximumQueuedBytesPerIdentity {
            return refuse(.bytesFull, wait: wait, retryAfter: max(wait / 2, 1_000_000))
        }
        if overloaded && policy.overload == .newestFirst { return nil }
        let budget = arrival.budget == 0 ? policy.defaultBudget : arrival.budget
        let own = times.bound(arrival.method.index) ?? times.cost(arrival.method.index)
        let need = wait &+ own
        guard readyCount > 0 && need > budget else { return nil }
        // Where other methods keep the workers busy, nobody else would find out that this one has become faster.
        isProbe = own > budget && wait < budget && times.mayProbe(arrival.method.index, own: own, now: now)
        return isProbe ? nil : refuse(.wouldExpire, wait: wait, run: own, retryAfter: max(need - budget, 1_000_000))
    }

    /// Whether an idle worker can have this call at once, and no other call waits for that.
    @inline(__always) private func isSoughtByNone(workerFor arrival: Arrival, identity: UInt16) -> Bool {
        if arrival.session != 0 && policy.affinity == .require, let slot = servingSlot(SessionTable.Key(identity: identity, session: arrival.session)) {
            return workers[slot].outstanding == 0 && workers[slot].pinnedHead == CallRecord.noLink
        }
        return queue.count == 0 && idleHead != WorkerRecord.noLink
    }

    func refuse(_ reason: Refusal.Reason, wait: Nanoseconds = 0, run: Nanoseconds = 0, retryAfter: Nanoseconds = 0) -> Refusal {
        Refusal(reason: reason, predictedWait: wait, expectedRun: run, retryAfter: retryAfter)
    }

    /// Estimated wait of a call that arrives now: the work before it, shared by the ready workers.
    func predictedWait(identity: UInt16, priority: Priority) -> Nanoseconds {
        guard readyCount > 0 else { return 0 }
        let ahead = queue.workAhead(identity: identity, priority: priority) &+ outstandingWork
        return ahead / UInt64(readyCount)
    }

    // MARK: - Cancel and expiry

    /// CANCEL, or the client is gone.
    mutating func cancel(_ call: CallID, _ reason: RevokeReason, _ effects: inout EffectBuffer) {
        guard let index = calls.live(call) else { return }
        switch calls.records[index].place {
        case .free: return
        case .queued, .pinned:
            withdraw(index)
            if reason == .abandoned { abandon(index, &effects) } else { finish(index, .cancelledWaiting, &effects) }
        case .sent:
            revoke(index, reason, &effects)
        case .revoking:
            // Asked already; who is gone needs no answer.
            if reason == .abandoned { calls.records[index].reason = .abandoned }
        }
    }

    mutating func expireCall(_ index: Int, _ effects: inout EffectBuffer) {
        switch calls.records[index].place {
        case .free: preconditionFailure("call \(index) has ended but its deadline was armed")
        case .queued, .pinned:
            withdraw(index)
            finish(index, .timeoutWaiting, &effects)
        case .sent: revoke(index, .expired, &effects)
        case .revoking: if calls.records[index].reason == .takenBack { calls.records[index].reason = .expired }
        }
    }

    private mutating func revoke(_ index: Int, _ reason: RevokeReason, _ effects: inout EffectBuffer) {
        calls.records[index].place = .revoking
        calls.records[index].reason = reason
        let slot = Int(calls.records[index].slot)
        effects.append(.revoke(id(slot), number: calls.records[index].number, interrupt: policy.overrun != .finish))
    }

    /// What the page said: each call that was being revoked has begun or never will.
    mutating func revoked(_ worker: WorkerID, _ first: UInt64, _ last: UInt64, _ started: UInt64, _ effects: inout EffectBuffer) {
        guard let slot = live(worker) else { return }
        let plausible = isPlausible(started, slot)
        if !plausible { scribbled(slot, &effects) }
        var takenBack = 0
        var number = workers[slot].next
        // From the last to the first, so that what is taken back keeps its order at the front of the queue.
        while number > workers[slot].first {
            number -= 1
            guard number >= first, number <= last else { continue }
            let at = ring(slot, number)
            guard let index = calls.live(sent[at].call), calls.records[index].place == .revoking else { continue }
            let began = !plausible || number <= started
            let reason = calls.records[index].reason
            switch reason {
            case .none: preconditionFailure("call \(index) is being revoked without a reason")
            case .takenBack where began:
                calls.records[index].place = .sent
                calls.records[index].reason = .none
            case .takenBack:
                sent[at].call = .none
                calls.records[index].reason = .none
                takenBack += 1
                if number == workers[slot].first { doesNotBegin(slot, number) }
                requeue(index, &effects)
            case .expired, .cancelled, .abandoned:
                sent[at].call = .none
                if began {
                    overran(slot, number, &effects)
                } else if started < workers[slot].first {
                    doesNotBegin(slot, number)
                }
                if reason == .abandoned {
                    abandon(index, &effects)
                } else if reason == .expired {
                    finish(index, began ? .timeoutRunning : .timeoutWaiting, &effects)
                } else {
                    finish(index, began ? .cancelledRunning : .cancelledWaiting, &effects)
                }
            }
        }
        if takenBack > 0 {
            counters.takenBack += UInt64(takenBack)
            effects.append(.publish(.takenBack(worker, calls: takenBack)))
        }
        serveQueue(&effects)
    }

    // MARK: - Ends

    /// Takes a waiting call out of its queue.
    mutating func withdraw(_ index: Int) {
        switch calls.records[index].place {
        case .queued: queue.remove(index, &calls)
        case .pinned: unpin(index)
        case .free, .sent, .revoking: preconditionFailure("call \(index) does not wait")
        }
    }

    mutating func finish(_ index: Int, _ proposed: Outcome, _ effects: inout EffectBuffer) {
        // A call that was to run again has had its effects once: it must not be told that it never began.
        let outcome = calls.records[index].attempts > 0 ? proposed.afterBeginning : proposed
        effects.append(.finish(calls.id(index), outcome))
        guard !calls.records[index].isTargeted else { return forget(index) }
        measureEnd(index, outcome, began: proposed.began)
        switch outcome {
        case .timeoutWaiting, .timeoutRunning: counters.timeouts += 1
        case .cancelledWaiting, .cancelledRunning: counters.cancelled += 1
        case .workerLost: counters.workerLost += 1
        case .draining, .shed, .unavailable, .sessionLost: counters.dropped += 1
        }
        forget(index)
    }

    mutating func abandon(_ index: Int, _ effects: inout EffectBuffer) {
        effects.append(.release(calls.id(index)))
        if !calls.records[index].isTargeted { counters.abandoned += 1 }
        forget(index)
    }

    mutating func forget(_ index: Int) {
        timers.disarm(node(call: index))
        if calls.records[index].holdsSession { letGoOfSession(index) }
        calls.free(index)
    }

    /// Ends every waiting call.
    mutating func flush(_ outcome: Outcome, _ effects: inout EffectBuffer) {
        while let index = queue.first() {
            queue.remove(index, &calls)
            finish(index, outcome, &effects)
        }
        for slot in 0..<usedSlots { flushPinned(slot, outcome, &effects) }
    }

    // MARK: - Replies

    /// Only runs that came to their end: one that was interrupted says no more than that a call may take longer than somebody's budget.
    private mutating func measure(_ slot: Int, _ method: UInt16, ran: Nanoseconds, elapsed: Nanoseconds, isProbe: Bool) {
        if isProbe { times.forget(method) }
        // Methods whose numbers are 64 apart share a bit: a first call of one of them then counts as any other.
        let bit: UInt64 = 1 << UInt64(method & 63)
        // Where workers are replaced after a few calls, first ones are a good part of all.
        let isFirst = workers[slot].called & bit == 0 && !isProbe && (policy.maximumCalls == 0 || policy.maximumCalls > 64)
        workers[slot].called |= bit
        if times.record(method, ran: ran, elapsed: elapsed, isFirst: isFirst) { queue.appraise(method, &calls, times) }
    }

    mutating func replied(
        _ worker: WorkerID, _ number: UInt64, _ kind: ReplyKind, _ ran: Nanoseconds, _ effects: inout EffectBuffer
    ) {
        guard let slot = live(worker), !workers[slot].deaf else { return }
        guard number == workers[slot].first, number < workers[slot].next else {
            // Twice, out of order, or never asked: nothing it says can be trusted.
            deafened(worker, .protocolFault, &effects)
            return
        }
        let entry = sent[ring(slot, number)]
        sent[ring(slot, number)].call = .none
        workers[slot].first += 1
        if workers[slot].outstanding == 0 && workers[slot].phase == .ready { busyCount -= 1 }
        workers[slot].work &-= entry.cost
        workers[slot].bound &-= min(entry.bound, workers[slot].bound)
        outstandingCalls -= 1
        outstandingWork &-= entry.cost
        let elapsed = now.since(workers[slot].mark)
        workers[slot].mark = now
        workers[slot].pinged = false
        workers[slot].healthFailures = 0

        switch kind {
        case .result, .error, .interrupted:
            workers[slot].calls += 1
            let index = calls.live(entry.call)
            if entry.method != MethodID.builtIn.index {
                metrics.histograms.record(entry.method, .service, ran)
                if kind != .interrupted {
                    measure(slot, entry.method, ran: ran, elapsed: elapsed, isProbe: index.map { calls.records[$0].isProbe } ?? false)
                }
            }
            succeeded(slot, &effects)
            if let index {
                switch calls.records[index].place {
                case .sent, .revoking:
                    if !calls.records[index].isTargeted {
                        if kind == .result { counters.results += 1 } else { counters.errors += 1 }
                        measureReply(index, entry.method, isResult: kind == .result)
                    }
                    effects.append(.deliver(entry.call))
                    forget(index)
                case .free, .queued, .pinned: preconditionFailure("call \(index) waits and is at a worker")
                }
            }
        case .unrunExpired:
            if let index = calls.live(entry.call) { finish(index, .timeoutWaiting, &effects) }
        case .unrunRevoked:
            // Revoked calls were settled when the page was read; one that was not is lost to a scribbling worker.
            if let index = calls.live(entry.call) {
                calls.records[index].reason = .none
                requeue(index, &effects)
            }
        }
        if workers[slot].overrun != 0 {
            if workers[slot].first > workers[slot].overrun {
                workers[slot].overrun = 0
                disarm(slot, .hang)
            } else if timers.isArmed(node(slot, .hang)) {
                // It returns from one after the other.
                arm(slot, .hang, at: now + policy.hangAfter)
            }
        }
        afterReply(slot, &effects)
        // It gave a call back that it may not get again: another may be idle.
        if kind == .unrunRevoked { serveQueue(&effects) }
    }
}
