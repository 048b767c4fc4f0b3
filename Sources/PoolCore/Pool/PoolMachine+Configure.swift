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
        configureWorkers(old)
        configureSessions()
        let before = wanted
        wanted = min(max(new.workers != old.workers ? new.workers : wanted, new.minimumWorkers), new.maximumWorkers)
        if before != wanted { effects.append(.publish(.scaled(from: before, to: wanted))) }
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
        if policy.circuitOpenFor != old.circuitOpenFor { circuitSpan = policy.circuitOpenFor }
        guard policy.circuitFailures == 0, circuit != .closed else { return }
        circuit = .closed
        circuitCount = 0
        effects.append(.publish(.circuit(.closed)))
    }

    /// Limits of the workers that serve; those that come get theirs when they are ready.
    private mutating func configureWorkers(_ old: PoolPolicy) {
        for slot in 0..<usedSlots where workers[slot].phase == .ready {
            if policy.maximumAge != old.maximumAge || policy.recycleJitterPercent != old.recycleJitterPercent || policy.maximumCalls != old.maximumCalls {
                setLimits(slot)
            }
            if policy.maximumPrivateBytes == 0 { workers[slot].privateBytes = 0 }
            if !workers[slot].leaving { armUpkeep(slot) }
            if policy.healthInterval != old.healthInterval && policy.healthInterval > 0 && !workers[slot].pinged {
                arm(slot, .health, at: now + policy.healthInterval)
            }
        }
    }

    /// Age and calls at which a ready worker is replaced.
    mutating func setLimits(_ slot: Int) {
        let percent = policy.recycleJitterPercent
        workers[slot].ageLimit = policy.maximumAge == 0 ? .never : workers[slot].readyAt + random.jitter(policy.maximumAge, percent: percent)
        workers[slot].callsLimit = policy.maximumCalls == 0 ? .max : max(1, random.jitter(policy.maximumCalls, percent: percent))
    }

    private mutating func configureSessions() {
        if policy.affinity == .prefer {
            while sessions.count > policy.maximumSessions, let oldest = sessions.leastRecentlyUsed { sessions.remove(oldest.key) }
        }
        timers.disarm(node(.sessions))
        guard policy.sessionTimeToLive > 0, let oldest = sessions.leastRecentlyUsed else { return }
        arm(.sessions, at: oldest.lastUsed + policy.sessionTimeToLive)
    }
}
