extension PoolMachine {
    // MARK: - Where a call goes

    /// A call that is in no list yet: to a worker if one has room, otherwise it waits.
    mutating func place(_ index: Int, _ effects: inout EffectBuffer) {
        if placeBySession(index, &effects) { return }
        if queue.count == 0, maySend, let slot = slotWithRoom() {
            send(index, to: slot, &effects)
        } else {
            calls.records[index].place = .queued
            queue.pushBack(index, &calls)
        }
    }

    /// Back to the front, after it was taken back or its worker died before it began.
    mutating func requeue(_ index: Int, _ effects: inout EffectBuffer) {
        if ending {
            finish(index, .draining, &effects)
        } else if calls.records[index].deadline <= now {
            finish(index, .timeoutWaiting, &effects)
        } else if calls.records[index].isTargeted {
            returnToTarget(index, &effects)
        } else if policy.affinity == .require && calls.records[index].session != 0 {
            repin(index, &effects)
        } else if wanted == 0 || health == .unavailable {
            finish(index, .unavailable, &effects)
        } else {
            calls.records[index].place = .queued
            calls.records[index].cost = times.cost(calls.records[index].method)
            queue.pushFront(index, &calls)
        }
    }

    /// The circuit breaker's gate.
    var maySend: Bool {
        switch circuit {
        case .closed: return true
        case .open: return false
        case .halfOpen: return !isProbing
        }
    }

    /// One call at a time tries a half-open circuit. Others may still be at workers, even for ever: from before it opened.
    private var isProbing: Bool {
        guard let index = calls.live(probe) else { return false }
        switch calls.records[index].place {
        case .sent, .revoking: return true
        case .free, .queued, .pinned: return false
        }
    }

    /// The last used idle worker, so that the others stay idle and the pool can shrink; otherwise the
    /// busy one with the fewest calls that will come to this one soon.
    func slotWithRoom() -> Int? {
        if idleHead != WorkerRecord.noLink { return Int(idleHead) }
        guard policy.window > 1 else { return nil }
        var best: Int?
        for slot in 0..<usedSlots where hasRoom(slot) {
            if let least = best, workers[least].outstanding <= workers[slot].outstanding { continue }
            best = slot
        }
        return best
    }

    func hasRoom(_ slot: Int) -> Bool {
        guard workers[slot].phase == .ready, !workers[slot].leaving, !workers[slot].deaf else { return false }
        let outstanding = workers[slot].outstanding
        if outstanding == 0 { return true }
        return outstanding < policy.window && workers[slot].bound <= policy.aheadSpan && workers[slot].overrun == 0
    }

    mutating func send(_ index: Int, to slot: Int, _ effects: inout EffectBuffer) {
        let method = calls.records[index].method
        let number = workers[slot].next
        let cost = times.cost(method)
        // Nothing is sent behind a method whose times are not known or vary.
        let bound = times.bound(method) ?? policy.aheadSpan &+ 1
        if workers[slot].outstanding == 0 {
            workers[slot].mark = now
            busyCount += 1
            if workers[slot].isIdle { leaveIdle(slot) }
        } else if !timers.isArmed(node(.rebalance)) {
            arm(.rebalance, at: now + 2 * policy.aheadSpan)
        }
        sent[ring(slot, number)] = SentCall(call: calls.id(index), cost: cost, bound: bound, method: method)
        workers[slot].next += 1
        workers[slot].work &+= cost
        workers[slot].bound &+= bound
        outstandingCalls += 1
        outstandingWork &+= cost
        if circuit == .halfOpen { probe = calls.id(index) }
        calls.records[index].place = .sent
        calls.records[index].slot = UInt16(slot)
        calls.records[index].number = number
        calls.records[index].sentAt = now
        if policy.affinity != .none && calls.records[index].session != 0 { bindSession(index, to: slot) }
        effects.append(.send(calls.id(index), to: id(slot), number: number, deadline: calls.records[index].deadline))
    }

    // MARK: - Filling workers

    /// A worker has answered: give it more, or let it rest, or let it go.
    mutating func afterReply(_ slot: Int, _ effects: inout EffectBuffer) {
        if workers[slot].leaving {
            if workers[slot].outstanding == 0 { beginDrain(slot, &effects) }
            return
        }
        if workers[slot].calls >= workers[slot].callsLimit && !workers[slot].replaceWanted && !workers[slot].replacing {
            recycle(id(slot), .calls, &effects)
        }
        fill(slot, &effects)
        rest(slot)
    }

    mutating func fill(_ slot: Int, _ effects: inout EffectBuffer) {
        while maySend, hasRoom(slot) {
            if workers[slot].pinnedHead != CallRecord.noLink {
                let index = Int(workers[slot].pinnedHead)
                unpin(index)
                sendUnlessExpired(index, to: slot, &effects)
            } else if let index = nextWaiting(&effects) {
                if !goesToItsSession(index, insteadOf: slot, &effects) { sendUnlessExpired(index, to: slot, &effects) }
            } else {
                return
            }
        }
    }

    mutating func sendUnlessExpired(_ index: Int, to slot: Int, _ effects: inout EffectBuffer) {
        // A call that cannot end in time would take a worker from one that can.
        let least = calls.records[index].isProbe ? 0 : times.least(calls.records[index].method)
        if calls.records[index].deadline <= now + least {
            finish(index, .timeoutWaiting, &effects)
        } else {
            send(index, to: slot, &effects)
        }
    }

    mutating func rest(_ slot: Int) {
        guard workers[slot].phase == .ready, !workers[slot].leaving, !workers[slot].deaf,
            workers[slot].outstanding == 0, !workers[slot].isIdle
        else { return }
        enterIdle(slot)
    }

    /// Workers that may have room for what waits: after something other than a reply has changed.
    mutating func serveQueue(_ effects: inout EffectBuffer) {
        for slot in 0..<usedSlots where workers[slot].pinnedHead != CallRecord.noLink { fill(slot, &effects) }
        while queue.count > 0, maySend, let slot = slotWithRoom() {
            guard let index = nextWaiting(&effects) else { return }
            if !goesToItsSession(index, insteadOf: slot, &effects) { sendUnlessExpired(index, to: slot, &effects) }
        }
    }

    /// The next call of the queue, under the overload policy.
    private mutating func nextWaiting(_ effects: inout EffectBuffer) -> Int? {
        switch policy.overload {
        case .refuse:
            return queue.pop(newest: false, &calls, times)
        case .newestFirst:
            guard let index = queue.pop(newest: overloaded, &calls, times) else {
                calm()
                return nil
            }
            observeWait(index)
            return index
        case .codel:
            while let index = queue.pop(newest: false, &calls, times) {
                observeWait(index)
                guard overloaded, now >= shedNext, queue.count > 0 else { return index }
                shedCount += 1
                shedNext = now + UInt64(Double(policy.overloadInterval) / Double(shedCount).squareRoot())
                finish(index, .shed, &effects)
            }
            calm()
            return nil
        }
    }

    /// CoDel's test (Nichols and Jacobson 2012): overloaded once the wait has stayed above the target for an interval.
    private mutating func observeWait(_ index: Int) {
        if now.since(calls.records[index].arrived) < policy.overloadTarget {
            // Under newest-first a short wait says nothing of the old ones.
            if !(overloaded && policy.overload == .newestFirst && queue.count > 0) { calm() }
        } else if aboveTargetSince == .never {
            aboveTargetSince = now
        } else if !overloaded && now.since(aboveTargetSince) >= policy.overloadInterval {
            overloaded = true
            shedNext = now
        }
    }

    mutating func calm() {
        aboveTargetSince = .never
        overloaded = false
        shedNext = .never
        shedCount = 0
    }

    // MARK: - Taking back

    /// Calls behind one that takes longer than thought go back to where another worker can have them.
    mutating func rebalance(_ effects: inout EffectBuffer) {
        var isAhead = false
        for slot in 0..<usedSlots where workers[slot].outstanding > 1 && !workers[slot].deaf && holdsAhead(slot) {
            let silent = now.since(workers[slot].mark)
            let others = idleHead != WorkerRecord.noLink
            if silent >= 10 * policy.aheadSpan || (others && silent >= 2 * policy.aheadSpan) {
                takeBackAhead(slot, &effects)
            } else {
                isAhead = true
            }
        }
        if isAhead { arm(.rebalance, at: now + 2 * policy.aheadSpan) }
    }

    /// Whether a call that could be taken back waits behind the oldest.
    private func holdsAhead(_ slot: Int) -> Bool {
        for number in (workers[slot].first + 1)..<workers[slot].next {
            if let index = calls.live(sent[ring(slot, number)].call), calls.records[index].place == .sent { return true }
        }
        return false
    }

    /// Asks for all but the oldest call of a worker.
    mutating func takeBackAhead(_ slot: Int, _ effects: inout EffectBuffer) {
        guard workers[slot].outstanding > 1 else { return }
        takeBack(slot, from: workers[slot].first + 1, &effects)
    }

    /// Asks for the calls of a worker from this number on; those that have begun stay.
    mutating func takeBack(_ slot: Int, from first: UInt64, _ effects: inout EffectBuffer) {
        guard first < workers[slot].next, workers[slot].phase == .ready else { return }
        var asked = 0
        for number in first..<workers[slot].next {
            guard let index = calls.live(sent[ring(slot, number)].call), calls.records[index].place == .sent else {
                continue
            }
            calls.records[index].place = .revoking
            calls.records[index].reason = .takenBack
            asked += 1
        }
        guard asked > 0 else { return }
        effects.append(.takeBack(id(slot), first: first, last: workers[slot].next - 1))
    }

    // MARK: - Idle workers, last used first

    mutating func enterIdle(_ slot: Int) {
        workers[slot].isIdle = true
        workers[slot].idlePrevious = WorkerRecord.noLink
        workers[slot].idleNext = idleHead
        if idleHead != WorkerRecord.noLink {
            workers[Int(idleHead)].idlePrevious = UInt16(slot)
        } else {
            idleTail = UInt16(slot)
        }
        idleHead = UInt16(slot)
    }

    mutating func leaveIdle(_ slot: Int) {
        let (previous, next) = (workers[slot].idlePrevious, workers[slot].idleNext)
        if previous != WorkerRecord.noLink { workers[Int(previous)].idleNext = next } else { idleHead = next }
        if next != WorkerRecord.noLink { workers[Int(next)].idlePrevious = previous } else { idleTail = previous }
        workers[slot].isIdle = false
    }
}
