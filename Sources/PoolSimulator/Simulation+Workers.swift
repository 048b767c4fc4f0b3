import PoolCore

/// How worker processes behave: PROTOCOL.md, section 7.
extension Simulation {
    // MARK: - Running calls

    /// It takes the next call, unless it runs one.
    mutating func work(_ slot: Int) {
        while canWork(slot) {
            guard !workers[slot].inbox.isEmpty else {
                flush(slot)
                if workers[slot].isDraining { end(id(slot), .status(0), after: span(-4)) }
                return
            }
            let next = workers[slot].inbox.removeFirst()
            workers[slot].started = next.number
            if random.chance(4) {
                // Preempted between the store and the look at the revocation.
                totals[.lateChecks] += 1
                workers[slot].checking = next
                agenda.add(.check(id(slot), number: next.number), at: now + span(-2))
                return
            }
            decide(slot, next)
        }
    }

    private func canWork(_ slot: Int) -> Bool {
        workers[slot].life == .serving && workers[slot].running == 0 && workers[slot].checking == nil && !workers[slot].isStalled && !workers[slot].isDying
    }

    mutating func lateCheck(_ worker: WorkerID, _ number: UInt64) {
        guard let slot = simulated(worker), !workers[slot].isDying, let next = workers[slot].checking, next.number == number else { return }
        workers[slot].checking = nil
        decide(slot, next)
        work(slot)
    }

    /// `started` is stored; deadline and revocation are looked at now.
    private mutating func decide(_ slot: Int, _ next: SimulatedWorker.Inbound) {
        if workers[slot].revoked.contains(next.number) {
            workers[slot].buffered.append(SimulatedWorker.Reply(number: next.number, kind: .unrunRevoked, ran: 0))
        } else if now >= next.deadline {
            workers[slot].buffered.append(SimulatedWorker.Reply(number: next.number, kind: .unrunExpired, ran: 0))
        } else {
            begin(slot, next)
        }
    }

    private mutating func begin(_ slot: Int, _ next: SimulatedWorker.Inbound) {
        let worker = id(slot)
        workers[slot].running = next.number
        workers[slot].runningSince = now
        noteBegun(next, slot)
        if random.chance(30) { flush(slot) }
        if calls[next.serial].poison != 0 {
            totals[.crashesRunning] += 1
            end(worker, .signal(11), after: span(-2))
            return
        }
        if strikes(perMille: world.faults.stallPerMille) {
            // Never ends.
            totals[.stalledCalls] += 1
            workers[slot].isStubborn = true
            return
        }
        let fault = random.next()
        if strikes(perMille: world.faults.crashPerMille) { agenda.add(.crash(worker), at: now + fault >> UInt64(63 - world.serviceBits)) }
        if strikes(perMille: world.faults.misbehavePerMille) { misbehave(slot) }
        if strikes(perMille: world.faults.scribblePerMille) { workers[slot].scribbles = true }
        if strikes(perMille: world.faults.workerStallPerMille) { stall(slot) }
        workers[slot].isStubborn = random.chance(world.faults.stubbornPercent)
        var duration = world.isSteady ? (UInt64(1) << UInt64(world.serviceBits - 1)) + span(-6) : span()
        if !isCalm && random.chance(world.slowPercent) { duration <<= 8 }
        let kind: ReplyKind = random.chance(10) ? .error : .result
        agenda.add(.callEnds(worker, number: next.number, kind: kind), at: now + duration)
    }

    mutating func callEnds(_ worker: WorkerID, _ number: UInt64, _ kind: ReplyKind) {
        guard let slot = simulated(worker), workers[slot].running == number, !workers[slot].isDying else { return }
        if workers[slot].isStalled {
            // A stopped process ends nothing; it may when it goes on.
            agenda.add(.callEnds(worker, number: number, kind: kind), at: now + 1 + span(4))
            return
        }
        workers[slot].running = 0
        workers[slot].isStubborn = false
        workers[slot].buffered.append(SimulatedWorker.Reply(number: number, kind: kind, ran: max(1, now - min(now, workers[slot].runningSince))))
        if strikes(perMille: world.faults.idleCrashPerMille) { agenda.add(.crash(worker), at: now + span(2)) }
        work(slot)
    }

    /// A stopped process: it does nothing until it is let go on, perhaps never.
    mutating func stall(_ slot: Int) {
        totals[.stalledWorkers] += 1
        workers[slot].isStalled = true
        if random.chance(50) { agenda.add(.resumeProcess(id(slot)), at: now + span(10)) }
    }

    private mutating func misbehave(_ slot: Int) {
        let at = now + span(1)
        switch random.below(3) {
        case 0: agenda.add(.broken(id(slot)), at: at)
        case 1: agenda.add(.closed(id(slot)), at: at)
        default:
            // Answers out of order, twice, or what was never asked.
            totals[.wrongNumbers] += 1
            workers[slot].isFaulty = true
            let number = workers[slot].running &- 1 &+ UInt64(random.below(4)) &+ (random.chance(10) ? random.next() : 0)
            workers[slot].socket.append(SimulatedWorker.Reply(number: number, kind: .result, ran: 1))
            agenda.add(.read(id(slot)), at: at)
        }
    }

    // MARK: - Replies

    /// Replies leave the worker; poold reads them a little later.
    private mutating func flush(_ slot: Int) {
        guard !workers[slot].buffered.isEmpty, !workers[slot].isUnheard else { return }
        workers[slot].socket += workers[slot].buffered
        workers[slot].buffered = []
        guard !workers[slot].isReading else { return }
        workers[slot].isReading = true
        agenda.add(.read(id(slot)), at: now + span(random.chance(10) ? 2 : -4))
    }

    mutating func read(_ worker: WorkerID) throws(Violation) {
        guard let slot = simulated(worker) else { return }
        workers[slot].isReading = false
        while let slot = simulated(worker), !workers[slot].isUnheard, !workers[slot].socket.isEmpty {
            let reply = workers[slot].socket.removeFirst()
            let method = workers[slot].held.first.map { calls[$0.serial].method }
            let answered = noteReply(slot, reply)
            replyAtHand = (worker, reply.number, reply.kind)
            let ran = strikes(perMille: world.faults.misbehavePerMille) ? random.next() : reply.ran
            if let method { longestRun[Int(method)] = max(longestRun[Int(method)], min(ran, 86_400_000_000_000)) }
            try apply(.workerReplied(worker, number: reply.number, kind: reply.kind, ran: ran))
            replyAtHand = nil
            if let answered, calls[answered].place != .ended { throw fail("the reply to \(calls[answered].id) was read and not delivered") }
        }
    }

    // MARK: - Signals and the end

    func heeds(_ slot: Int) -> Bool { workers[slot].life != .none && !workers[slot].isDying && !workers[slot].isStalled }

    mutating func receiveDrain(_ slot: Int) {
        workers[slot].isDraining = true
        guard heeds(slot), workers[slot].running == 0, workers[slot].checking == nil else { return }
        end(id(slot), .status(0), after: span(random.chance(10) && !isCalm ? 9 : -2))
    }

    /// Signals and PING wait for a stopped process and reach it when it goes on.
    mutating func takePending(_ slot: Int) {
        let (terminate, interrupt, ping) = (workers[slot].pendingTerminate, workers[slot].pendingInterrupt, workers[slot].pendingPing)
        workers[slot].pendingTerminate = false
        workers[slot].pendingInterrupt = 0
        workers[slot].pendingPing = false
        if terminate { receiveTerminate(slot) }
        if interrupt > 0 { receiveInterrupt(slot, interrupt) }
        if ping { receivePing(slot) }
    }

    mutating func receiveTerminate(_ slot: Int) {
        if workers[slot].isStalled { workers[slot].pendingTerminate = true }
        guard heeds(slot) else { return }
        if workers[slot].ignoresTerm {
            totals[.termIgnored] += 1
        } else {
            end(id(slot), .signal(15), after: span(random.chance(20) ? 6 : -2))
        }
    }

    /// SIGUSR1: raises `Cancelled` in the main thread if the page still names that call.
    mutating func receiveInterrupt(_ slot: Int, _ number: UInt64) {
        if workers[slot].isStalled { workers[slot].pendingInterrupt = number }
        guard heeds(slot), workers[slot].running == number else { return }
        if workers[slot].isStubborn {
            totals[.interruptSwallowed] += 1
        } else {
            agenda.add(.callEnds(id(slot), number: number, kind: .interrupted), at: now + span(-3))
        }
    }

    mutating func receivePing(_ slot: Int) {
        if workers[slot].isStalled { workers[slot].pendingPing = true }
        guard heeds(slot), workers[slot].life == .serving, !strikes(perMille: world.faults.workerStallPerMille * 4) else { return }
        if strikes(perMille: world.faults.workerStallPerMille) { return stall(slot) }
        agenda.add(.pong(id(slot)), at: now + span(-4))
    }

    /// It will be dead at that time; nothing it does from now on counts.
    mutating func end(_ worker: WorkerID, _ cause: ExitCause, after span: UInt64) {
        guard let slot = simulated(worker), !workers[slot].isDying else { return }
        workers[slot].isDying = true
        agenda.add(.exit(worker, cause), at: now + span)
    }

    /// SIGKILL: also for who is dying slowly.
    mutating func receiveKill(_ slot: Int) {
        workers[slot].isDying = true
        agenda.add(.exit(id(slot), .signal(9)), at: now + span(-4))
    }

    mutating func exit(_ worker: WorkerID, _ cause: ExitCause) throws(Violation) {
        guard let slot = simulated(worker) else { return }
        // What it wrote before it died is read first.
        if !workers[slot].socket.isEmpty && !workers[slot].isUnheard {
            totals[.repliesReadAfterDeath] += workers[slot].socket.count
            try read(worker)
        }
        guard let slot = simulated(worker) else { return }
        totals[.repliesLostUnwritten] += workers[slot].buffered.count
        var started = workers[slot].started
        var running = workers[slot].running
        if workers[slot].scribbles {
            totals[.scribbledPages] += 1
            started = scribbledNumber(slot)
            running = random.chance(50) ? random.next() : running
        }
        let mustBlame = expectsBlame(slot, started: started, running: running)
        workers[slot].life = .none
        noteExit(slot, started: started, running: running)
        exitAtHand = (worker, running)
        blamesAtHand = 0
        try apply(.workerExited(worker, started: started, running: running, cause: cause))
        exitAtHand = nil
        if mustBlame && blamesAtHand != 1 { throw fail("\(worker) died while it ran call \(running), which is not blamed") }
        for serial in living where calls[serial].place == .atWorker && calls[serial].worker == worker {
            throw fail("\(calls[serial].id) was at \(worker), which is dead, and has neither ended nor gone back")
        }
    }

    /// A `started` that cannot be: beyond what was sent, or before what was answered.
    mutating func scribbledNumber(_ slot: Int) -> UInt64 {
        let low = workers[slot].firstUnanswered
        if low > 1 && random.chance(30) { return low - 2 - UInt64(random.below(Int(min(low - 1, 1000)))) }
        return workers[slot].lastNumber + 1 + (random.next() >> UInt64(1 + random.below(63)))
    }
}
