extension PoolMachine {
    private func key(_ index: Int) -> SessionTable.Key {
        SessionTable.Key(identity: calls.records[index].identity, session: calls.records[index].session)
    }

    /// The slot of a session's worker, if that worker still serves.
    func servingSlot(_ key: SessionTable.Key) -> Int? {
        guard let worker = sessions.worker(key), let slot = live(worker) else { return nil }
        return isServing(slot) ? slot : nil
    }

    func isServing(_ slot: Int) -> Bool { workers[slot].phase == .ready && !workers[slot].leaving && !workers[slot].deaf }

    mutating func sessionRefusal(_ arrival: Arrival, identity: UInt16) -> Refusal.Reason? {
        guard arrival.session != 0, policy.affinity == .require else { return nil }
        let key = SessionTable.Key(identity: identity, session: arrival.session)
        if sessions.worker(key) != nil {
            if servingSlot(key) != nil { return nil }
            // Said once; the next call of the session begins anew.
            sessions.remove(key)
            return .sessionLost
        }
        return sessions.count >= policy.maximumSessions
            || sessions.count(of: identity) >= policy.maximumSessionsPerIdentity ? .sessionQuota : nil
    }

    /// Places a call that belongs to a session; false: like any other.
    mutating func placeBySession(_ index: Int, _ effects: inout EffectBuffer) -> Bool {
        guard calls.records[index].session != 0 else { return false }
        switch policy.affinity {
        case .none: return false
        case .prefer:
            guard queue.count == 0, maySend, let slot = servingSlot(key(index)), hasRoom(slot) else { return false }
            send(index, to: slot, &effects)
            return true
        case .require:
            guard let slot = servingSlot(key(index)) else { return false }
            if workers[slot].pinnedHead == CallRecord.noLink, maySend, hasRoom(slot) {
                send(index, to: slot, &effects)
            } else {
                pin(index, to: slot)
            }
            return true
        }
    }

    /// A call of a session that comes back: to its worker, or lost with it.
    mutating func repin(_ index: Int, _ effects: inout EffectBuffer) {
        if let slot = servingSlot(key(index)) {
            pin(index, to: slot, atFront: true)
        } else {
            finish(index, .sessionLost, &effects)
        }
    }

    /// With `require`, a call that waited while its session got a worker goes to that one, or is lost with it.
    mutating func goesToItsSession(_ index: Int, insteadOf slot: Int, _ effects: inout EffectBuffer) -> Bool {
        guard policy.affinity == .require, calls.records[index].session != 0, sessions.worker(key(index)) != nil else { return false }
        guard let own = servingSlot(key(index)) else {
            finish(index, .sessionLost, &effects)
            return true
        }
        guard own != slot else { return false }
        if workers[own].pinnedHead == CallRecord.noLink, hasRoom(own) {
            sendUnlessExpired(index, to: own, &effects)
        } else {
            pin(index, to: own)
        }
        return true
    }

    /// With `require` or a target, a begun call must not run again elsewhere.
    func isPinnedElsewhere(_ index: Int) -> Bool { calls.records[index].isTargeted || policy.affinity == .require && calls.records[index].session != 0 }

    mutating func bindSession(_ index: Int, to slot: Int) {
        let key = key(index)
        // With `require` the bounds were kept at the door; calls that wait may exceed them by as many as may wait.
        if sessions.worker(key) == nil && policy.affinity == .prefer {
            guard sessions.count(of: key.identity) < policy.maximumSessionsPerIdentity else { return }
            if sessions.count >= policy.maximumSessions {
                guard let oldest = sessions.leastRecentlyUsed else { return }
                sessions.remove(oldest.key)
            }
        }
        sessions.bind(key, to: id(slot), now: now)
        holdSession(index)
        armSessions()
    }

    mutating func armSessions() {
        guard policy.sessionTimeToLive > 0, !timers.isArmed(node(.sessions)) else { return }
        arm(.sessions, at: now + policy.sessionTimeToLive)
    }

    private mutating func holdSession(_ index: Int) {
        guard policy.affinity == .require, !calls.records[index].holdsSession else { return }
        calls.records[index].holdsSession = sessions.hold(key(index))
    }

    mutating func letGoOfSession(_ index: Int) {
        calls.records[index].holdsSession = false
        sessions.letGo(key(index), of: id(Int(calls.records[index].slot)), now: now)
        armSessions()
    }

    mutating func expireSessions(_ effects: inout EffectBuffer) {
        guard policy.sessionTimeToLive > 0 else { return }
        while let oldest = sessions.leastRecentlyUsed {
            let end = oldest.lastUsed + policy.sessionTimeToLive
            if end > now {
                arm(.sessions, at: end)
                return
            }
            sessions.remove(oldest.key)
        }
    }

    /// Calls that waited for a worker which will serve no more. The sessions themselves are forgotten when next used.
    mutating func dropSessions(of slot: Int, _ effects: inout EffectBuffer) {
        flushPinned(slot, .sessionLost, &effects)
    }
    mutating func repinAll(_ slot: Int, _ effects: inout EffectBuffer) { flushPinned(slot, .sessionLost, &effects) }

    // MARK: - Calls that wait for one worker

    mutating func pin(_ index: Int, to slot: Int, atFront: Bool = false) {
        calls.records[index].place = .pinned
        calls.records[index].slot = UInt16(slot)
        holdSession(index)
        let neighbour = atFront ? workers[slot].pinnedHead : workers[slot].pinnedTail
        calls.records[index].previous = atFront ? CallRecord.noLink : neighbour
        calls.records[index].next = atFront ? neighbour : CallRecord.noLink
        if neighbour == CallRecord.noLink {
            workers[slot].pinnedHead = UInt32(index)
            workers[slot].pinnedTail = UInt32(index)
        } else if atFront {
            calls.records[Int(neighbour)].previous = UInt32(index)
            workers[slot].pinnedHead = UInt32(index)
        } else {
            calls.records[Int(neighbour)].next = UInt32(index)
            workers[slot].pinnedTail = UInt32(index)
        }
        workers[slot].pinnedCount += 1
        pinnedCalls += 1
        queue.hold(calls.records[index])
    }

    mutating func unpin(_ index: Int) {
        let slot = Int(calls.records[index].slot)
        let (previous, next) = (calls.records[index].previous, calls.records[index].next)
        if previous == CallRecord.noLink {
            workers[slot].pinnedHead = next
        } else {
            calls.records[Int(previous)].next = next
        }
        if next == CallRecord.noLink {
            workers[slot].pinnedTail = previous
        } else {
            calls.records[Int(next)].previous = previous
        }
        calls.records[index].previous = CallRecord.noLink
        calls.records[index].next = CallRecord.noLink
        workers[slot].pinnedCount -= 1
        pinnedCalls -= 1
        queue.letGo(calls.records[index])
    }

    mutating func flushPinned(_ slot: Int, _ outcome: Outcome, _ effects: inout EffectBuffer) {
        while workers[slot].pinnedHead != CallRecord.noLink {
            let index = Int(workers[slot].pinnedHead)
            unpin(index)
            finish(index, outcome, &effects)
        }
    }
}
