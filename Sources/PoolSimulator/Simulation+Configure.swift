import PoolCore

/// Another policy at bad moments, and what the shadow model makes of it.
extension Simulation {
    /// A few values changed, or all of them, or now and then an absurd one.
    mutating func randomPolicy() -> PoolPolicy {
        var fresh = World.paced(World.policy(&random, serviceBits: world.serviceBits), serviceBits: world.serviceBits, bootBits: world.bootBits)
        if random.chance(3) && !isCalm {
            World.exaggerate(&fresh, &random)
            hasAbsurdPolicy = true
        }
        if random.chance(30) { return fresh }
        var changed = policy
        for _ in 0...random.below(4) {
            switch random.below(10) {
            case 0: changed.affinity = fresh.affinity
            case 1: changed.overload = fresh.overload
            case 2: changed.overrun = fresh.overrun
            case 3...5:
                let path = World.spans[random.below(World.spans.count)]
                changed[keyPath: path] = fresh[keyPath: path]
            default:
                let path = World.counts[random.below(World.counts.count)]
                changed[keyPath: path] = fresh[keyPath: path]
            }
        }
        return World.paced(changed, serviceBits: world.serviceBits, bootBits: world.bootBits)
    }

    /// The limits follow; what is in use may exceed a lowered one until it has drained. The number of workers that must be wanted then.
    mutating func noteConfiguration(_ proposed: PoolPolicy) -> Int {
        guard !isStopped else { return wanted }
        let old = policy
        policy = proposed.clamped
        guard policy != old else { return wanted }
        while workers.count < policy.maximumWorkers + policy.surge { workers.append(SimulatedWorker()) }
        for slot in workers.indices {
            // It may be one too many now, or too old.
            workers[slot].mayLeave = true
            for at in workers[slot].held.indices { workers[slot].held[at].patience = min(workers[slot].held[at].patience, policy.hangAfter) }
        }
        hangKills = 0
        backOffUntil = min(backOffUntil, (Instant(nanoseconds: told) + policy.backOffMaximum).nanoseconds)
        suspects = policy.quarantineDeaths > 0 ? suspects.filter { told - min(told, $0.value.last) <= policy.quarantineFor } : [:]
        sessionsLeftOver = machine.status(now: Instant(nanoseconds: told)).sessions + waitingCalls
        if policy.affinity != old.affinity || policy.overload != old.overload { orderedFrom = calls.count }
        if policy.affinity != old.affinity || policy.sessionTimeToLive != old.sessionTimeToLive || policy.maximumSessions != old.maximumSessions {
            for key in sessions.keys { sessions[key]?.isFirm = false }
        }
        let count = policy.workers != old.workers ? policy.workers : wanted
        return min(max(count, policy.minimumWorkers), policy.maximumWorkers)
    }
}
