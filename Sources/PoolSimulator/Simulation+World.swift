import PoolCore

extension Simulation {
    func simulated(_ worker: WorkerID) -> Int? {
        let slot = Int(worker.slot)
        return slot < workers.count && workers[slot].generation == worker.generation && workers[slot].life != .none ? slot : nil
    }

    func id(_ slot: Int) -> WorkerID { WorkerID(slot: UInt16(slot), generation: workers[slot].generation) }

    // MARK: - What happens in the world

    mutating func happen(_ happening: Happening) throws(Violation) {
        switch happening {
        case .arrival:
            guard !isCalm else { return }
            for _ in 0..<(1 + random.below(world.burst)) { try arrive() }
            agenda.add(.arrival, at: now + random.span(1, 2 * world.arrivalGap))
        case .spawned(let worker):
            guard let slot = simulated(worker), workers[slot].life == .asked else { return }
            workers[slot].life = .booting
            try apply(.workerSpawned(worker))
            guard let slot = simulated(worker), workers[slot].life == .booting else { return }
            if isBrokenModule || (!isCalm && random.chance(world.setupFailPercent)) {
                agenda.add(.setupFailed(worker), at: now + random.anySpan(maximumBits: 30))
            } else if !isCalm && random.perMille(world.stallPerMille * 3) {
                return  // Never becomes ready.
            } else {
                agenda.add(.ready(worker), at: now + random.anySpan(maximumBits: isCalm ? 24 : 32))
            }
            if !isCalm && random.perMille(world.crashPerMille * 2) { agenda.add(.crash(worker), at: now + random.anySpan(maximumBits: 31)) }
        case .spawnFailed(let worker):
            guard let slot = simulated(worker), workers[slot].life == .asked else { return }
            workers[slot].life = .none
            try apply(.workerSpawnFailed(worker, error: 11))
        case .ready(let worker):
            guard let slot = simulated(worker), workers[slot].life == .booting, !workers[slot].isDying else { return }
            workers[slot].life = .serving
            if !workers[slot].isRetired { workers[slot].isReadyToPoold = true }
            try apply(.workerReady(worker))
        case .setupFailed(let worker):
            guard let slot = simulated(worker), workers[slot].life == .booting, !workers[slot].isDying else { return }
            workers[slot].mayBeKilled = true
            try apply(.workerSetupFailed(worker))
            end(worker, .status(70), after: random.anySpan(maximumBits: 20))
        case .callEnds(let worker, let number, let kind): try callEnds(worker, number, kind)
        case .read(let worker): try read(worker)
        case .pong(let worker): if simulated(worker) != nil { try apply(.workerPonged(worker)) }
        case .crash(let worker):
            if isCalm || simulated(worker) == nil { return }
            end(worker, .signal(11), after: 0)
        case .exit(let worker, let cause): try exit(worker, cause)
        case .broken(let worker):
            guard let slot = simulated(worker), workers[slot].life == .serving else { return }
            workers[slot].mayBeKilled = true
            workers[slot].isReadyToPoold = false
            workers[slot].socket = []
            try apply(.workerBroken(worker))
        case .closed(let worker):
            guard let slot = simulated(worker), workers[slot].life == .serving || workers[slot].life == .booting else { return }
            try read(worker)
            guard let slot = simulated(worker) else { return }
            workers[slot].mayBeKilled = true
            workers[slot].isReadyToPoold = false
            try apply(.workerClosed(worker))
        case .cancel(let call):
            if let serial = live(call) { calls[serial].isCancelled = true }
            try apply(.callCancelled(call))
        case .abandon(let call):
            if let serial = live(call) { calls[serial].isAbandoned = true }
            try apply(.callAbandoned(call))
        case .blamed(let method, let hash):
            let known = suspects[hash]
            let isOld = known.map { now - min(now, $0.last) > world.policy.quarantineFor } ?? true
            suspects[hash] = (isOld ? 1 : known!.deaths + 1, now)
            try apply(.callBlamed(method: method, hash: hash))
        case .measured(let worker, let bytes): try apply(.workerMeasured(worker, privateBytes: bytes))
        case .operation: try operate()
        }
    }

    mutating func arrive() throws(Violation) {
        let isPoison = !isCalm && random.perMille(world.poisonPerMille)
        // The hash covers the method.
        let method = random.below(world.methods)
        let hash = isPoison ? UInt64(1 + method) : 100 + random.next() % 1000
        let arrival = Arrival(
            identity: IdentityID(index: UInt16(random.below(world.identities))), method: MethodID(index: UInt16(method)),
            priority: Priority.allCases[random.below(3)], idempotent: random.chance(30), session: random.chance(50) ? 0 : UInt64(1 + random.below(5)),
            budget: random.chance(50) ? 0 : 1 + random.anySpan(maximumBits: 36), bodyBytes: UInt32(random.below(random.chance(10) ? 5_000 : 100)),
            bodyHash: machine.wantsBodyHash ? hash : 0)
        arrivalAtHand = arrival
        poisonAtHand = isPoison ? hash : 0
        counted.arrived += 1
        count(\.calls)
        try apply(.callArrived(arrival))
    }

    private mutating func operate() throws(Violation) {
        guard !isCalm else { return }
        agenda.add(.operation, at: now + random.span(1, 2 * world.operationGap))
        let slot = random.below(workers.count)
        let worker = random.chance(80) ? id(slot) : WorkerID(slot: UInt16(slot), generation: workers[slot].generation &- 1)
        switch random.below(24) {
        case 0...5: try apply(.scale(workers: random.below(world.policy.maximumWorkers + 3) - 1))
        case 6...8: try apply(.recycle(worker))
        case 9: try apply(.recycleAll)
        case 10...12:
            if let slot = simulated(worker) { workers[slot].mayBeKilled = true }
            try apply(.kill(worker))
        case 13: try apply(.drain)
        case 14...17: try apply(.resume)
        case 18:
            suspects = [:]
            try apply(.clearQuarantine(hash: 0))
        case 19: if random.chance(4) { try beginShutdown() }
        case 20: isBrokenModule = world.brokenModulePercent > 0 && !isBrokenModule
        // Late news of workers that are long gone, and news that make no sense now.
        case 21: try apply(.workerReady(WorkerID(slot: UInt16(slot), generation: workers[slot].generation &- 1)))
        case 22: try apply(.workerReplied(WorkerID(slot: UInt16(slot), generation: workers[slot].generation &- 1), number: 1, kind: .result, ran: 5))
        default:
            let call = CallID(index: UInt32(random.below(300)), generation: UInt32(random.below(3)))
            if let serial = live(call) { calls[serial].isCancelled = true }
            try apply(.callCancelled(call))
        }
    }

    private mutating func beginShutdown() throws(Violation) {
        isShuttingDown = true
        if random.chance(50) {
            isEnding = true
            for slot in workers.indices { workers[slot].mayBeKilled = true }
            try apply(.shutdownNow)
        } else {
            try apply(.shutdown(limit: random.anySpan(maximumBits: 34)))
        }
    }

    // MARK: - Workers

    /// It takes the next call, unless it runs one.
    mutating func work(_ slot: Int) {
        while workers[slot].life == .serving, workers[slot].running == 0, !workers[slot].isStalled, !workers[slot].isDying {
            guard !workers[slot].inbox.isEmpty else {
                flush(slot)
                if workers[slot].isDraining { end(id(slot), .status(0), after: random.anySpan(maximumBits: 20)) }
                return
            }
            let next = workers[slot].inbox.removeFirst()
            workers[slot].started = next.number
            if workers[slot].revoked.contains(next.number) {
                workers[slot].buffered.append(SimulatedWorker.Reply(number: next.number, kind: .unrunRevoked, ran: 0))
                continue
            }
            if now >= next.deadline {
                workers[slot].buffered.append(SimulatedWorker.Reply(number: next.number, kind: .unrunExpired, ran: 0))
                continue
            }
            begin(slot, next)
        }
    }

    private mutating func begin(_ slot: Int, _ next: SimulatedWorker.Inbound) {
        workers[slot].running = next.number
        workers[slot].runningSince = now
        noteBegun(next.call, slot)
        if random.chance(30) { flush(slot) }
        if next.isPoison {
            end(id(slot), .signal(11), after: random.anySpan(maximumBits: 20))
            return
        }
        if !isCalm && random.perMille(world.stallPerMille) {
            workers[slot].isStubborn = true
            return  // Never ends.
        }
        if !isCalm && random.perMille(world.crashPerMille) { agenda.add(.crash(id(slot)), at: now + random.anySpan(maximumBits: world.serviceBits + 1)) }
        if !isCalm && random.perMille(world.misbehavePerMille) { misbehave(slot) }
        workers[slot].isStubborn = random.chance(world.stubbornPercent)
        let span = random.anySpan(maximumBits: world.serviceBits) << UInt64(random.chance(world.slowPercent) ? 8 : 0)
        agenda.add(.callEnds(id(slot), number: next.number, kind: random.chance(10) ? .error : .result), at: now + span)
    }

    private mutating func misbehave(_ slot: Int) {
        let worker = id(slot)
        let at = now + random.anySpan(maximumBits: world.serviceBits)
        switch random.below(4) {
        case 0: agenda.add(.broken(worker), at: at)
        case 1: agenda.add(.closed(worker), at: at)
        case 2:
            workers[slot].scribbles = true
            end(worker, .signal(11), after: random.anySpan(maximumBits: 20))
        default:
            // Answers out of order, or twice.
            workers[slot].mayBeKilled = true
            workers[slot].socket.append(SimulatedWorker.Reply(number: workers[slot].running + UInt64(random.below(3)) &+ 1, kind: .result, ran: 1))
            agenda.add(.read(worker), at: at)
        }
    }

    private mutating func callEnds(_ worker: WorkerID, _ number: UInt64, _ kind: ReplyKind) throws(Violation) {
        guard let slot = simulated(worker), workers[slot].life == .serving, workers[slot].running == number, !workers[slot].isDying else { return }
        workers[slot].running = 0
        workers[slot].buffered.append(SimulatedWorker.Reply(number: number, kind: kind, ran: max(1, now - min(now, workers[slot].runningSince))))
        work(slot)
    }

    /// Replies leave the worker; poold reads them a little later.
    private mutating func flush(_ slot: Int) {
        guard !workers[slot].buffered.isEmpty else { return }
        workers[slot].socket += workers[slot].buffered
        workers[slot].buffered = []
        guard !workers[slot].isReading else { return }
        workers[slot].isReading = true
        agenda.add(.read(id(slot)), at: now + random.anySpan(maximumBits: 18))
    }

    mutating func read(_ worker: WorkerID) throws(Violation) {
        guard let slot = simulated(worker) else { return }
        workers[slot].isReading = false
        while let slot = simulated(worker), !workers[slot].socket.isEmpty {
            let reply = workers[slot].socket.removeFirst()
            // The machine hears no more of a worker that it has given up.
            if reply.number == workers[slot].firstUnanswered && reply.number <= workers[slot].lastNumber { workers[slot].firstUnanswered += 1 }
            if reply.kind == .unrunRevoked || reply.kind == .unrunExpired {
                for serial in calls.indices where calls[serial].place == .atWorker && calls[serial].worker == worker && calls[serial].number == reply.number {
                    calls[serial].place = .waiting
                }
            }
            replyAtHand = (worker, reply.number)
            try apply(.workerReplied(worker, number: reply.number, kind: reply.kind, ran: reply.ran))
        }
    }

    /// It will be dead at that time; nothing it does after now counts.
    mutating func end(_ worker: WorkerID, _ cause: ExitCause, after span: UInt64) {
        guard let slot = simulated(worker), !workers[slot].isDying else { return }
        workers[slot].isDying = true
        agenda.add(.exit(worker, cause), at: now + span)
    }

    private mutating func exit(_ worker: WorkerID, _ cause: ExitCause) throws(Violation) {
        guard simulated(worker) != nil else { return }
        // What it wrote before it died is read first.
        try read(worker)
        guard let slot = simulated(worker) else { return }
        var started = workers[slot].started
        var running = workers[slot].running
        if workers[slot].scribbles {
            started = random.next()
            running = random.next()
        }
        // Whatever it held ends now or waits again.
        for serial in calls.indices where calls[serial].place == .atWorker && calls[serial].worker == worker { calls[serial].place = .waiting }
        workers[slot].life = .none
        workers[slot].isReadyToPoold = false
        exitedOutstanding = (worker, running)
        count(\.deaths)
        try apply(.workerExited(worker, started: started, running: running, cause: cause))
    }
}
