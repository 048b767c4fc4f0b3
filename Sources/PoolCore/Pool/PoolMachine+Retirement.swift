extension PoolMachine {
    // MARK: - Wanted and actual

    /// Workers that count for the wanted number: those that serve or will, and have no replacement on its way.
    private func isCounted(_ slot: Int) -> Bool {
        let worker = workers[slot]
        guard !worker.leaving, !worker.replacing else { return false }
        switch worker.phase {
        case .spawning, .starting, .ready: return !worker.deaf
        case .empty, .draining, .terminating, .killing: return false
        }
    }

    private var target: Int {
        if ending || isStopped { return 0 }
        if shuttingDown { return calls.count > 0 ? wanted : 0 }
        return wanted
    }

    /// Brings the number of workers towards what is wanted.
    mutating func reconcile(_ effects: inout EffectBuffer) {
        guard !isStopped else { return }
        retireReplaced(&effects)
        chooseReplacements()
        var counted = 0
        var replacing = 0
        for slot in 0..<usedSlots {
            if isCounted(slot) { counted += 1 }
            if workers[slot].replacing && !workers[slot].leaving { replacing += 1 }
        }
        while counted > target, let slot = leastMissed() {
            retire(slot, shuttingDown ? .shutdown : .scaledDown, &effects)
            counted -= 1
        }
        while counted < target, startingCount < policy.startingAtOnce {
            let free = max(backOffUntil, restartsAllowedFrom)
            if free > now {
                arm(.reconcile, at: free)
                return
            }
            // A worker that is leaving but still busy may as well stay.
            if let slot = revivable() {
                workers[slot].leaving = false
                workers[slot].endWanted = false
                rest(slot)
                counted += 1
                retireReplaced(&effects)
                continue
            }
            guard let slot = freeSlot() else { return }
            startWorker(slot, counted + replacing < target ? .wanted : .replaced, &effects)
            counted += 1
        }
    }

    private func freeSlot() -> Int? {
        var occupied = 0
        var free: Int?
        for slot in 0..<workers.count {
            if workers[slot].phase == .empty { free = free ?? slot } else { occupied += 1 }
        }
        return occupied < policy.maximumWorkers + policy.surge ? free : nil
    }

    private func revivable() -> Int? {
        for slot in 0..<usedSlots {
            let worker = workers[slot]
            if worker.phase == .ready && worker.leaving && !worker.replaceWanted && !worker.deaf && worker.cause == .scaledDown { return slot }
        }
        return nil
    }

    private mutating func startWorker(_ slot: Int, _ cause: WorkerCause, _ effects: inout EffectBuffer) {
        let generation = workers[slot].generation &+ 1
        workers[slot] = WorkerRecord()
        workers[slot].generation = generation
        usedSlots = max(usedSlots, slot + 1)
        enter(slot, .spawning, cause, &effects)
        effects.append(.spawn(id(slot)))
    }

    /// Whom to let go first: who does not serve yet, then the idle one unused for the longest, then the least busy.
    private func leastMissed() -> Int? {
        for phase in [WorkerPhase.spawning, .starting] {
            for slot in 0..<usedSlots where isCounted(slot) && workers[slot].phase == phase { return slot }
        }
        var tail = idleTail
        while tail != WorkerRecord.noLink {
            if isCounted(Int(tail)) { return Int(tail) }
            tail = workers[Int(tail)].idlePrevious
        }
        var least: Int?
        for slot in 0..<usedSlots where isCounted(slot) {
            if let other = least, workers[other].outstanding <= workers[slot].outstanding { continue }
            least = slot
        }
        return least
    }

    /// Lets a worker go without harm to its calls: it gets no more, and ends when it holds none.
    mutating func retire(_ slot: Int, _ cause: WorkerCause, _ effects: inout EffectBuffer) {
        guard !workers[slot].leaving else { return }
        workers[slot].replacing = false
        workers[slot].replaceWanted = false
        workers[slot].endWanted = true
        switch workers[slot].phase {
        case .spawning:
            // Its process is on its way; it is ended when it comes.
            workers[slot].leaving = true
            workers[slot].cause = cause
        case .starting:
            terminate(slot, cause, &effects)
        case .ready:
            stopServing(slot)
            workers[slot].cause = cause
            dropSessions(of: slot, &effects)
            takeBackAhead(slot, &effects)
            if workers[slot].outstanding == 0 {
                beginDrain(slot, &effects)
            } else if workers[slot].overrun != 0 && !timers.isArmed(node(slot, .hang)) {
                arm(slot, .hang, at: now + policy.hangAfter)
            }
        case .empty, .draining, .terminating, .killing: return
        }
    }

    mutating func beginDrain(_ slot: Int, _ effects: inout EffectBuffer) {
        guard workers[slot].phase == .ready else { return }
        workers[slot].endWanted = true
        let cause = workers[slot].cause
        enter(slot, .draining, cause == .becameReady ? .wanted : cause, &effects)
        disarmAll(slot)
        arm(slot, .phase, at: now + policy.drainGrace)
        effects.append(.drainWorker(id(slot)))
    }

    // MARK: - Recycling, make before break

    mutating func recycle(_ worker: WorkerID, _ cause: WorkerCause, _ effects: inout EffectBuffer) {
        guard let slot = live(worker) else { return }
        markForReplacement(slot, cause)
        reconcile(&effects)
    }

    /// Those that live now; not the ones that come in their place.
    mutating func recycleAll(_ effects: inout EffectBuffer) {
        for slot in 0..<usedSlots { markForReplacement(slot, .operatorRecycle) }
        reconcile(&effects)
    }

    private mutating func markForReplacement(_ slot: Int, _ cause: WorkerCause) {
        guard !workers[slot].replacing, !workers[slot].replaceWanted else { return }
        if workers[slot].leaving {
            // It goes, and is not called back: it may run code that is to be gone.
            workers[slot].replaceWanted = true
            return
        }
        switch workers[slot].phase {
        case .spawning, .starting, .ready:
            workers[slot].replaceWanted = true
            workers[slot].replaceCause = cause
        case .empty, .draining, .terminating, .killing: return
        }
    }

    /// At most `surge` replacements at a time.
    private mutating func chooseReplacements() {
        var replacing = 0
        for slot in 0..<usedSlots where workers[slot].replacing && !workers[slot].leaving { replacing += 1 }
        for slot in 0..<usedSlots
        where replacing < policy.surge && workers[slot].replaceWanted && !workers[slot].leaving
            && workers[slot].phase == .ready
        {
            workers[slot].replaceWanted = false
            workers[slot].replacing = true
            replacing += 1
        }
    }

    /// Who is to be replaced may go as soon as the others are enough without it.
    private mutating func retireReplaced(_ effects: inout EffectBuffer) {
        var serving = 0
        for slot in 0..<usedSlots where workers[slot].phase == .ready && !workers[slot].leaving && !workers[slot].deaf { serving += 1 }
        for slot in 0..<usedSlots where serving > target && workers[slot].replacing && workers[slot].phase == .ready && !workers[slot].leaving {
            counters.recycled += 1
            serving -= 1
            retire(slot, workers[slot].replaceCause, &effects)
        }
    }

    // MARK: - Upkeep

    mutating func armUpkeep(_ slot: Int) {
        var next = workers[slot].ageLimit
        if policy.maximumPrivateBytes > 0 { next = min(next, now + policy.measureInterval) }
        arm(slot, .upkeep, at: next)
    }

    mutating func upkeepTimer(_ slot: Int, _ effects: inout EffectBuffer) {
        guard workers[slot].phase == .ready, !workers[slot].leaving else { return }
        if now >= workers[slot].ageLimit {
            workers[slot].ageLimit = .never
            recycle(id(slot), .age, &effects)
        }
        // It may have been retired just now.
        guard workers[slot].phase == .ready, !workers[slot].leaving else { return }
        if policy.maximumPrivateBytes > 0 { effects.append(.measure(id(slot))) }
        armUpkeep(slot)
    }

    mutating func measured(_ worker: WorkerID, _ privateBytes: UInt64, _ effects: inout EffectBuffer) {
        guard let slot = live(worker) else { return }
        workers[slot].privateBytes = privateBytes
        if policy.maximumPrivateBytes > 0 && privateBytes > policy.maximumPrivateBytes {
            recycle(worker, .memory, &effects)
        }
    }

    // MARK: - Operator

    mutating func scale(to count: Int, _ effects: inout EffectBuffer) {
        let old = wanted
        wanted = min(max(count, policy.minimumWorkers), policy.maximumWorkers)
        if old != wanted { effects.append(.publish(.scaled(from: old, to: wanted))) }
        if wanted == 0 { flush(.unavailable, &effects) }
        reconcile(&effects)
        serveQueue(&effects)
    }

    mutating func killWorker(_ worker: WorkerID, _ effects: inout EffectBuffer) {
        guard let slot = live(worker) else { return }
        workers[slot].endWanted = true
        switch workers[slot].phase {
        case .spawning:
            workers[slot].leaving = true
            workers[slot].cause = .operatorKill
        case .starting, .ready, .draining, .terminating:
            kill(slot, .operatorKill, &effects)
            repinAll(slot, &effects)
        case .empty, .killing: return
        }
        reconcile(&effects)
    }

    // MARK: - Shutdown, as a plan in data: refuse, finish, stop, done

    mutating func shutDown(within limit: Nanoseconds, _ effects: inout EffectBuffer) {
        guard !shuttingDown else { return }
        shuttingDown = true
        draining = true
        arm(.shutdown, at: now + limit)
    }

    /// Nothing more is awaited. `killing`: and no worker gets a grace.
    mutating func endNow(killing: Bool, _ effects: inout EffectBuffer) {
        guard !isStopped else { return }
        shuttingDown = true
        draining = true
        ending = true
        killingAll = killingAll || killing
        timers.disarm(node(.shutdown))
        flush(.draining, &effects)
        for slot in 0..<usedSlots {
            workers[slot].endWanted = true
            switch workers[slot].phase {
            case .spawning:
                workers[slot].leaving = true
                workers[slot].cause = .shutdown
            case .starting, .ready, .draining, .terminating:
                if killing { hasten(slot, .shutdown, &effects) } else { terminate(slot, .shutdown, &effects) }
            case .empty, .killing: continue
            }
        }
    }

    mutating func continueShutdown(_ effects: inout EffectBuffer) {
        guard !isStopped else { return }
        if calls.count == 0 { reconcile(&effects) }
        for slot in 0..<usedSlots where workers[slot].phase != .empty { return }
        guard calls.count == 0 else { return }
        isStopped = true
        for timer in PoolTimer.allCases { timers.disarm(node(timer)) }
        effects.append(.stopped)
    }
}
