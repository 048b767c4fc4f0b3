import PoolCore

/// Calls for one worker alone: each ends exactly once, and no other worker ever gets it. A quarter of the seeds has them.
extension Simulation {
    /// poold warms workers: ready ones, and some that are gone or not there yet.
    mutating func callTargets() throws(Violation) {
        guard seed % 4 == 3, !isCalm else { return }
        for _ in 0..<random.below(4) {
            let slot = random.below(workers.count)
            let target: WorkerID
            switch random.below(20) {
            case 0: target = WorkerID(slot: UInt16(workers.count + random.below(600)), generation: 1)
            case 1: target = WorkerID(slot: UInt16(slot), generation: workers[slot].generation &- 1)
            default: target = id(slot)
            }
            let budget = random.chance(30) ? 0 : 1 + random.anySpan(maximumBits: world.budgetBits)
            try arrive(
                Arrival(
                    identity: IdentityID(index: 0), method: MethodID(index: UInt16(random.below(world.methods))), priority: .normal,
                    idempotent: random.chance(50), session: random.chance(10) ? 1 : 0, budget: budget, bodyBytes: UInt32(random.below(100)), target: target),
                poison: 0)
        }
    }

    /// Calls that are not in the machine's counters.
    var livingTargeted: Int {
        var count = 0
        for serial in living where calls[serial].target != .none { count += 1 }
        return count
    }

    /// Whether this effect ends such a call.
    func endsTargeted(_ effect: Effect) -> Bool {
        switch effect {
        case .deliver(let call), .finish(let call, _), .release(let call):
            guard let serial = live(call) else { return false }
            return calls[serial].target != .none
        case .admit, .send, .refuse, .blame, .revoke, .takeBack, .spawn, .ping, .drainWorker, .terminate, .kill, .measure, .publish, .stopped: return false
        }
    }

    func checkTarget(_ serial: Int, _ worker: WorkerID) throws(Violation) {
        guard calls[serial].target == worker else { throw fail("\(calls[serial].id) is for \(calls[serial].target) alone and is sent to \(worker)") }
    }

    /// It serves no more, or there was a reason to let it go.
    func mayBeLost(_ target: WorkerID) -> Bool {
        guard let slot = simulated(target), workers[slot].phase == .ready else { return true }
        let worker = workers[slot]
        for held in worker.held where held.overranAt != 0 { return true }
        return worker.mayLeave || worker.isDeaf || worker.isUnheard || worker.isFaulty || isShuttingDown || policy.maximumAge > 0 || policy.maximumCalls > 0
    }

    mutating func targetRefused(_ refusal: Refusal, _ arrival: Arrival) throws(Violation) {
        totals[Tally(refusal.reason)] += 1
        let isRight: Bool
        switch refusal.reason {
        case .draining: isRight = isShuttingDown
        case .sessionLost: isRight = mayBeLost(arrival.target)
        case .unavailable: isRight = circuit != .closed
        case .queueFull: isRight = isFull
        case .bytesFull:
            let bytes = UInt64(arrival.bodyBytes)
            isRight =
                waitingBytes + bytes > policy.maximumQueuedBytes
                || waitingBytesByIdentity[Int(arrival.identity.index)] + bytes > policy.maximumQueuedBytesPerIdentity
        case .wouldExpire, .quarantined, .sessionQuota: isRight = false
        }
        guard isRight else { throw fail("a call for \(arrival.target) is refused as \(refusal.reason) without cause") }
        if mustServe { throw fail("a call for \(arrival.target) is refused as \(refusal.reason) while that is idle and nobody waits") }
    }

    /// Work is conserved for them too: none waits while its worker is idle and may be sent to.
    func checkTargetsAreServed() throws(Violation) {
        guard circuit == .closed else { return }
        for serial in living where calls[serial].place == .waiting && calls[serial].target != .none {
            guard let slot = simulated(calls[serial].target) else { throw fail("\(calls[serial].id) waits for \(calls[serial].target), which is gone") }
            let worker = workers[slot]
            if worker.phase == .ready && worker.outstanding == 0 && !worker.isDeaf && !worker.isUnheard {
                throw fail("\(calls[serial].id) waits for \(calls[serial].target), which is idle")
            }
        }
    }
}
