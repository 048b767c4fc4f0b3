import PoolCore

extension Simulation {
    /// An operator's command at a bad moment, or news that make no sense now.
    mutating func operate() throws(Violation) {
        guard !isCalm else { return }
        agenda.add(.operation, at: now + random.span(1, 2 * world.operationGap))
        if random.chance(world.faults.stalePercent) { try tellStaleNews() }
        if random.chance(world.faults.configurePercent) { try apply(randomPolicy()) }
        guard random.chance(world.faults.operatorPercent) else { return }
        let slot = random.below(workers.count)
        let worker = random.chance(80) ? id(slot) : WorkerID(slot: UInt16(slot), generation: workers[slot].generation &- 1)
        switch random.below(24) {
        case 0...5:
            let count = random.chance(80) ? 1 + random.below(policy.maximumWorkers + 2) : [0, -1, .max, .min][random.below(4)]
            noteMayLeave()
            try apply(.scale(workers: count))
            let expected = min(max(count, policy.minimumWorkers), policy.maximumWorkers)
            guard wanted == expected || isStopped else { throw fail("scaled to \(count), wanted is \(wanted) instead of \(expected)") }
        case 6...9:
            if let slot = simulated(worker) { workers[slot].mayLeave = true }
            try apply(.recycle(worker))
        case 10:
            noteMayLeave()
            try apply(.recycleAll)
        case 11...13:
            if let slot = simulated(worker) { workers[slot].operatorKilled = true }
            noteMayLeave()
            try apply(.kill(worker))
        case 14:
            isDraining = true
            try apply(.drain)
        case 15...19:
            isDraining = false
            try apply(.resume)
        case 20:
            let hash = random.chance(50) ? 0 : UInt64(1 + random.below(world.methods))
            if hash == 0 { suspects = [:] } else { suspects[hash] = nil }
            try apply(.clearQuarantine(hash: hash))
        case 21: if random.chance(10) { try beginShutdown() }
        case 22: isBrokenModule = world.faults.brokenModulePercent > 0 && !isBrokenModule
        default:
            if isShuttingDown { try endNow() }
        }
    }

    private mutating func noteMayLeave() {
        for slot in workers.indices { workers[slot].mayLeave = true }
    }

    mutating func beginShutdown() throws(Violation) {
        noteMayLeave()
        if random.chance(50) { return try endNow() }
        let limit = random.anySpan(maximumBits: world.serviceBits + 6)
        isShuttingDown = true
        try apply(.shutdown(limit: limit))
        shutdownAt = min(shutdownAt, told + limit)
    }

    private mutating func endNow() throws(Violation) {
        isShuttingDown = true
        shutdownAt = 0
        isKillingAll = true
        try apply(.shutdownNow)
    }

    /// Of workers and calls that are long gone, or never were, and outcomes that nobody asked for.
    private mutating func tellStaleNews() throws(Violation) {
        totals[.staleEvents] += 1
        let slot = random.below(workers.count)
        let gone: WorkerID
        switch random.below(4) {
        case 0: gone = WorkerID(slot: UInt16(workers.count + random.below(600)), generation: 1)
        case 1: gone = WorkerID(slot: UInt16(slot), generation: workers[slot].generation &+ 1 &+ UInt32(random.below(3)))
        default: gone = WorkerID(slot: UInt16(slot), generation: workers[slot].generation &- 1 &- UInt32(random.below(3)))
        }
        let nobody = CallID(index: UInt32(random.below(2 * serials.count + 2)), generation: .max - UInt32(random.below(3)))
        switch random.below(16) {
        case 0: try apply(.workerReady(gone))
        case 1: try apply(.workerReplied(gone, number: 1, kind: .result, ran: 5))
        case 2: try apply(.workerSpawned(gone))
        case 3: try apply(.workerSpawnFailed(gone, error: 12))
        case 4: try apply(.workerSetupFailed(gone))
        case 5: try apply(.workerPonged(gone))
        case 6: try apply(.workerBroken(gone))
        case 7: try apply(.workerClosed(gone))
        case 8: try apply(.workerExited(gone, started: random.next(), running: random.next(), cause: .status(1)))
        case 9: try apply(.workerRevoked(gone, first: 1, last: 5, started: random.next()))
        case 10: try apply(.workerMeasured(gone, privateBytes: .max))
        case 11: try apply(.callCancelled(nobody))
        case 12: try apply(.callAbandoned(nobody))
        case 13: try apply(.kill(gone))
        case 14: try apply(.recycle(gone))
        default:
            // An outcome twice: nothing is being revoked.
            guard let slot = simulated(id(slot)), workers[slot].phase == .ready else { return }
            try apply(.workerRevoked(id(slot), first: 1, last: workers[slot].lastNumber, started: workers[slot].started))
        }
    }
}
