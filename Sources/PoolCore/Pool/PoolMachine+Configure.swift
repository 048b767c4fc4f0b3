extension PoolMachine {
    /// Another policy while the pool runs. Not an `Event`: a policy is many times as large as every event of a call.
    ///
    /// What is in use stays above a lowered limit until it has drained; nothing new exceeds it. The wanted number follows
    /// `workers` where that differs from the old policy's; otherwise an operator's `scale` stays, inside the new bounds.
    package mutating func configure(_ proposed: PoolPolicy, now: Instant, into effects: inout EffectBuffer) {
        if now > self.now { self.now = now }
        advanceMetrics()
        guard !isStopped else { return }
        let old = policy
        let new = proposed.clamped
        guard new != old else { return }
        policy = new
        growTables()
        calls.bound = new.callBound
        if new.overload != old.overload || new.overloadTarget != old.overloadTarget { calm() }
        configureCircuit(old, &effects)
        configureAllowances()
        configureWorkers(old)
        if policy.aheadSpan < old.aheadSpan, timers.isArmed(node(.rebalance)) { arm(.rebalance, at: now + 2 * policy.aheadSpan) }
        configureSessions()
        configureQuarantine(old, &effects)
        let before = wanted
        wanted = min(max(new.workers != old.workers ? new.workers : wanted, new.minimumWorkers), new.maximumWorkers)
        if before != wanted { effects.append(.publish(.scaled(from: before, to: wanted))) }
        if old.overrun == .finish && new.overrun != .finish { endOverruns(&effects) }
        if wanted == 0 { flush(.unavailable, &effects) }
        reconcile(&effects)
        serveQueue(&effects)
        settle(&effects)
    }

    static func ringStride(window: Int) -> Int {
        var stride = 1
        while stride < window { stride *= 2 }
        return stride
    }

    /// Tables only grow: what they hold keeps its place.
    private mutating func growTables() {
        let stride = max(Self.ringStride(window: policy.window), ringMask + 1)
        let slots = max(policy.workerSlots, workers.count)
        guard stride > ringMask + 1 || slots > workers.count else { return }
        if slots > workers.count {
            timers.makeRoom(at: node(call: 0), count: (slots - workers.count) * WorkerTimer.count)
        }
        var larger = Array(repeating: SentCall(), count: slots * stride)
        for slot in 0..<usedSlots {
            for number in workers[slot].first..<workers[slot].next {
                larger[slot * stride + Int(truncatingIfNeeded: number) & (stride - 1)] = sent[ring(slot, number)]
            }
        }
        sent = larger
        ringMask = stride - 1
        while workers.count < slots { workers.append(WorkerRecord()) }
    }

    private mutating func configureCircuit(_ old: PoolPolicy, _ effects: inout EffectBuffer) {
        if policy.circuitOpenFor != old.circuitOpenFor {
            circuitSpan = policy.circuitOpenFor
            if circuit == .open && circuitUntil > now + circuitSpan {
                circuitUntil = now + circuitSpan
                arm(.circuit, at: circuitUntil)
            }
        }
        guard policy.circuitFailures == 0, circuit != .closed else { return }
        circuit = .closed
        circuitCount = 0
        effects.append(.publish(.circuit(.closed)))
    }

    /// Debts were counted in the old policy's spans: none is longer than what the new one would make of the same history.
    private mutating func configureAllowances() {
        backOffUntil = min(backOffUntil, now + policy.backOffMaximum)
        restartDebtUntil = min(restartDebtUntil, now + (Self.restartBurst + 1) * policy.backOffBase)
        killDebtUntil = min(killDebtUntil, now + UInt64(policy.killAllowance) * policy.killRefill)
    }

    /// Limits of the workers that serve; those that come get theirs when they are ready.
    private mutating func configureWorkers(_ old: PoolPolicy) {
        for slot in 0..<usedSlots where workers[slot].phase == .ready {
            if policy.maximumAge != old.maximumAge || policy.recycleJitterPercent != old.recycleJitterPercent || policy.maximumCalls != old.maximumCalls {
                setLimits(slot)
            }
            // It may have been put off by a long refill or an old limit.
            let isOtherwise = policy.hangAfter != old.hangAfter || policy.killRefill != old.killRefill || policy.killAllowance != old.killAllowance
            if isOtherwise, timers.isArmed(node(slot, .hang)) {
                arm(slot, .hang, at: now + policy.hangAfter)
            }
            if policy.maximumPrivateBytes == 0 { workers[slot].privateBytes = 0 }
            if !workers[slot].leaving { armUpkeep(slot) }
            if policy.healthInterval == 0 {
                workers[slot].pinged = false
                disarm(slot, .health)
            } else if policy.healthInterval != old.healthInterval && !workers[slot].pinged {
                arm(slot, .health, at: now + policy.healthInterval)
            }
        }
    }

    /// Calls that were given up and let run are no longer let run.
    private mutating func endOverruns(_ effects: inout EffectBuffer) {
        for slot in 0..<usedSlots where workers[slot].phase == .ready && workers[slot].overrun >= workers[slot].first {
            let oldest = workers[slot].first
            if calls.live(sent[ring(slot, oldest)].call) == nil { effects.append(.revoke(id(slot), number: oldest, interrupt: true)) }
            overran(slot, workers[slot].overrun, &effects)
        }
    }

    /// Age and calls at which a ready worker is replaced.
    mutating func setLimits(_ slot: Int) {
        let percent = policy.recycleJitterPercent
        workers[slot].ageLimit = policy.maximumAge == 0 ? .never : workers[slot].readyAt + random.jitter(policy.maximumAge, percent: percent)
        workers[slot].callsLimit = policy.maximumCalls == 0 ? .max : max(1, random.jitter(policy.maximumCalls, percent: percent))
    }

    private mutating func configureSessions() {
        if policy.affinity != .require { releasePinned() }
        if policy.affinity == .prefer {
            while sessions.count > policy.maximumSessions, let oldest = sessions.leastRecentlyUsed { sessions.remove(oldest.key) }
        }
        timers.disarm(node(.sessions))
        guard policy.sessionTimeToLive > 0, let oldest = sessions.leastRecentlyUsed else { return }
        arm(.sessions, at: oldest.lastUsed + policy.sessionTimeToLive)
    }

    /// Sessions no longer tie a call to one worker: who waited for one goes to the front of the queue, and no call keeps its session.
    private mutating func releasePinned() {
        for slot in 0..<usedSlots {
            // From the last, so that they keep their order.
            var link = workers[slot].pinnedTail
            while link != CallRecord.noLink {
                let index = Int(link)
                link = calls.records[index].previous
                if calls.records[index].isTargeted { continue }
                unpin(index)
                calls.records[index].place = .queued
                calls.records[index].cost = times.cost(calls.records[index].method)
                queue.pushFront(index, &calls)
            }
        }
        for index in calls.records.indices where calls.records[index].holdsSession { letGoOfSession(index) }
    }

    private mutating func configureQuarantine(_ old: PoolPolicy, _ effects: inout EffectBuffer) {
        guard policy.quarantineDeaths > 0 else { return suspects.removeAll() }
        suspects.removeAll { now.since($0.last) > policy.quarantineFor }
        for suspect in suspects where Int(suspect.deaths) >= policy.quarantineDeaths && Int(suspect.deaths) < old.quarantineDeaths {
            effects.append(.publish(.quarantined(method: MethodID(index: suspect.method), hash: suspect.hash)))
        }
    }
}
