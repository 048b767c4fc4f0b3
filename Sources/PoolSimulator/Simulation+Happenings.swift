import PoolCore

extension Simulation {
    func simulated(_ worker: WorkerID) -> Int? {
        let slot = Int(worker.slot)
        return slot < workers.count && workers[slot].generation == worker.generation && workers[slot].life != .none ? slot : nil
    }

    func id(_ slot: Int) -> WorkerID { WorkerID(slot: UInt16(slot), generation: workers[slot].generation) }

    /// A span about as long as things take here; `more` bits longer.
    mutating func span(_ more: Int = 0) -> UInt64 { random.anySpan(maximumBits: max(1, world.serviceBits + more)) }

    /// True by a share of the world's faults; they stop in the calm at the end.
    mutating func strikes(perMille share: Int) -> Bool { random.perMille(isCalm ? 0 : share) }
    mutating func strikes(percent share: Int) -> Bool { random.chance(isCalm ? 0 : share) }

    // MARK: - What happens in the world

    mutating func happen(_ happening: Happening) throws(Violation) {
        switch happening {
        case .arrival:
            guard !isCalm else { return }
            for _ in 0...random.below(world.burst) { try arrive() }
            agenda.add(.arrival, at: now + random.span(1, 2 * world.arrivalGap))
        case .spawned(let worker): try spawned(worker)
        case .spawnFailed(let worker):
            guard let slot = simulated(worker), workers[slot].life == .asked else { return }
            workers[slot].life = .none
            try apply(.workerSpawnFailed(worker, error: 11))
        case .ready(let worker):
            guard let slot = simulated(worker), workers[slot].life == .booting, !workers[slot].isDying else { return }
            workers[slot].life = .serving
            try apply(.workerReady(worker))
        case .setupFailed(let worker):
            guard let slot = simulated(worker), workers[slot].life == .booting, !workers[slot].isDying else { return }
            workers[slot].isFaulty = true
            try apply(.workerSetupFailed(worker))
            end(worker, .status(70), after: span(-4))
        case .callEnds(let worker, let number, let kind): callEnds(worker, number, kind)
        case .check(let worker, let number): lateCheck(worker, number)
        case .read(let worker): try read(worker)
        case .pong(let worker):
            guard let slot = simulated(worker), !workers[slot].isUnheard else { return }
            workers[slot].unansweredPings = 0
            try apply(.workerPonged(worker))
        case .crash(let worker):
            guard !isCalm, let slot = simulated(worker), !workers[slot].isDying else { return }
            totals[workers[slot].running > 0 ? .crashesRunning : workers[slot].life == .serving ? .crashesIdle : .crashesStarting] += 1
            end(worker, .signal(11), after: random.chance(50) ? 0 : span(-2))
        case .exit(let worker, let cause): try exit(worker, cause)
        case .broken(let worker):
            guard !isCalm, let slot = simulated(worker), workers[slot].life != .asked, !workers[slot].isUnheard else { return }
            workers[slot].isFaulty = true
            workers[slot].isUnheard = true
            workers[slot].socket = []
            try apply(.workerBroken(worker))
        case .closed(let worker):
            guard !isCalm, let slot = simulated(worker), workers[slot].life != .asked, !workers[slot].isUnheard else { return }
            try read(worker)
            guard let slot = simulated(worker), !workers[slot].isUnheard else { return }
            workers[slot].isFaulty = true
            workers[slot].isUnheard = true
            try apply(.workerClosed(worker))
        case .resumeProcess(let worker):
            guard let slot = simulated(worker), workers[slot].isStalled else { return }
            workers[slot].isStalled = false
            takePending(slot)
            work(slot)
        case .cancel(let call):
            if let serial = live(call) { calls[serial].isCancelled = true }
            try apply(.callCancelled(call))
        case .abandon(let call):
            if let serial = live(call) { calls[serial].isAbandoned = true }
            try apply(.callAbandoned(call))
        case .blamed(let method, let hash):
            try apply(.callBlamed(method: method, hash: hash))
        case .measured(let worker, let bytes):
            if let slot = simulated(worker) { workers[slot].mayLeave = true }
            try apply(.workerMeasured(worker, privateBytes: bytes))
        case .operation:
            try operate()
            try callTargets()
        }
    }

    mutating func arrive() throws(Violation) {
        let isPoison = strikes(perMille: world.faults.poisonPerMille)
        // The hash covers the method.
        let method = random.below(world.methods)
        let hash = isPoison ? UInt64(1 + method) : 100 + random.next() % 1000
        let budget: UInt64
        switch random.below(10) {
        case 0...3: budget = 0
        case 4: budget = UInt64(1 + random.below(2))
        default: budget = 1 + random.anySpan(maximumBits: world.budgetBits)
        }
        try arrive(
            Arrival(
                identity: IdentityID(index: UInt16(random.below(world.identities))), method: MethodID(index: UInt16(method)),
                priority: Priority.allCases[random.below(3)], idempotent: random.chance(world.idempotentPercent),
                session: random.chance(world.sessionPercent) ? UInt64(1 + random.below(5)) : 0, budget: budget,
                bodyBytes: UInt32(random.below(random.chance(10) ? 2_500 : 100)), bodyHash: machine.wantsBodyHash ? hash : 0),
            poison: isPoison ? hash : 0)
    }

    mutating func arrive(_ arrival: Arrival, poison: UInt64) throws(Violation) {
        if poison != 0 { totals[.poisonedCalls] += 1 }
        if !isStopped, arrival.bodyHash == 0, let hash = quarantinedHash, !machine.wantsBodyHash {
            throw fail("body \(hash) is in quarantine, but the machine does not ask for hashes")
        }
        arrivalAtHand = arrival
        poisonAtHand = poison
        admittedAtHand = nil
        if arrival.target == .none { counters.arrived += 1 }
        waitedBefore = (waitingCalls, waitingBytes, waitingBytesByIdentity[Int(arrival.identity.index)])
        let isOpen = circuit == .closed && !isShuttingDown && (arrival.target != .none || (!isDraining && wanted > 0))
        mustServe = isOpen && waitingCalls == 0 && living.count < policy.callBound && hasIdleWorker(for: arrival)
        try apply(.callArrived(arrival))
    }

    private mutating func spawned(_ worker: WorkerID) throws(Violation) {
        guard let slot = simulated(worker), workers[slot].life == .asked else { return }
        workers[slot].life = .booting
        try apply(.workerSpawned(worker))
        guard let slot = simulated(worker), workers[slot].life == .booting else { return }
        if strikes(perMille: world.faults.crashPerMille * 2) { agenda.add(.crash(worker), at: now + random.anySpan(maximumBits: world.bootBits)) }
        if strikes(perMille: world.faults.misbehavePerMille) {
            agenda.add(random.chance(50) ? .closed(worker) : .broken(worker), at: now + random.anySpan(maximumBits: world.bootBits))
        }
        let ready = now + random.anySpan(maximumBits: world.bootBits)
        if isBrokenModule || strikes(percent: world.faults.setupFailPercent) {
            totals[.importsBroken] += 1
            agenda.add(.setupFailed(worker), at: ready)
        } else if strikes(perMille: world.faults.workerStallPerMille * 5) {
            totals[.slowStarts] += 1
            if random.chance(50) { agenda.add(.ready(worker), at: ready + span(10)) }
        } else {
            agenda.add(.ready(worker), at: ready)
        }
    }
}
