import PoolCore

/// How a run ends: the faults stop, the pool comes to rest, serves once more, and shuts down.
extension Simulation {
    /// No more faults and arrivals: every call must end and the wanted workers be ready.
    mutating func calmDown() throws(Violation) {
        isCalm = true
        isBrokenModule = false
        if hasAbsurdPolicy { heal() }
        // Only where it is needed: a command makes the pool look at itself, and hides that it would not have done so.
        let event = isDraining ? Event.resume : .timer
        isDraining = false
        try apply(event)
        // A hung call may keep its caller for half an hour, in which every other worker is pinged each second.
        for _ in 0..<(hasAbsurdPolicy ? 100_000 : 2_000_000) {
            if hasConverged { return }
            guard hasSomethingDue else { break }
            try step()
        }
        // It may have to wait for days between two steps.
        if hasAbsurdPolicy && hasSomethingDue { return }
        let status = machine.status(now: Instant(nanoseconds: told))
        throw fail(
            "does not come to rest: \(living.count) calls live, the circuit is \(circuit), \(status.workers.count) workers of \(wanted): \(status.workers)")
    }

    /// Where the policy allows to hang for ever, what hangs goes on.
    private mutating func heal() {
        for slot in workers.indices where workers[slot].life != .none {
            agenda.add(.resumeProcess(id(slot)), at: now)
            if workers[slot].life == .booting { agenda.add(.ready(id(slot)), at: now) }
            if workers[slot].running > 0 { agenda.add(.callEnds(id(slot), number: workers[slot].running, kind: .error), at: now) }
            if workers[slot].phase == .terminating || workers[slot].phase == .draining { end(id(slot), .status(0), after: 1) }
            workers[slot].ignoresTerm = false
        }
    }

    private var hasConverged: Bool {
        guard living.isEmpty else { return false }
        if isShuttingDown { return isStopped }
        var alive = 0
        for worker in workers where worker.phase != .empty {
            alive += 1
            if worker.isDying { return false }
        }
        // Workers that age are always being replaced.
        return readyWorkers == wanted && (alive == wanted || policy.maximumAge > 0)
    }

    /// A pool at rest does nothing but its periodic duties, and serves a call.
    mutating func serveOnceMore() throws(Violation) {
        guard !isShuttingDown, !hasAbsurdPolicy else { return }
        if policy.healthInterval == 0 && policy.maximumPrivateBytes == 0 && policy.maximumAge == 0 {
            var wakes = 0
            while hasSomethingDue, agenda.isEmpty {
                wakes += 1
                guard wakes < 200 else { throw fail("a pool at rest wakes for ever") }
                try step()
            }
        }
        // A fault from before may still come to light.
        for worker in workers where worker.isFaulty { return }
        // Without checks of health nobody knows that an idle worker has stopped.
        if policy.healthInterval == 0 { for worker in workers where worker.isStalled { return } }
        // A call that was given up may, by `finish`, keep its worker for ever.
        guard wanted > 0, policy.overrun != .finish || hasIdleWorker else { return }
        for _ in 0..<20_000 {
            if circuit != .open && hasIdleWorker && !hidesAFault { break }
            guard hasSomethingDue else { break }
            try step()
        }
        if hidesAFault { throw fail("nobody finds out that an idle worker has stopped or died") }
        let served = counters.results + counters.errors + counters.timeouts + counters.cancelled + counters.abandoned
        try arrive(
            Arrival(identity: IdentityID(index: 0), method: MethodID(index: 0), budget: .max, bodyBytes: 0, bodyHash: machine.wantsBodyHash ? 7777 : 0),
            poison: 0)
        for _ in 0..<100_000 where !living.isEmpty {
            guard hasSomethingDue else { break }
            try step()
        }
        guard counters.results + counters.errors + counters.timeouts + counters.cancelled + counters.abandoned == served + 1 else {
            throw fail("all is well and a call is not served; the circuit is \(circuit)")
        }
        totals[.probesServed] += 1
    }

    /// An idle worker from before the calm that has stopped or is about to die: until that comes to light all is not well.
    private var hidesAFault: Bool {
        for worker in workers where worker.phase == .ready && worker.outstanding == 0 && (worker.isDying || worker.isStalled) { return true }
        return false
    }

    mutating func shutDown() throws(Violation) {
        if !isShuttingDown {
            if random.chance(50) { try arrive() }
            try beginShutdown()
        }
        for _ in 0..<100_000 {
            if isStopped { break }
            guard hasSomethingDue else { break }
            try step()
        }
        guard isStopped else { throw fail("a shutdown never ends: \(machine.status(now: Instant(nanoseconds: told)).workers)") }
        if let deadline = machine.nextDeadline, !hasAbsurdPolicy { throw fail("stopped, and something is due at \(deadline)") }
    }

    mutating func checkEnd() throws(Violation) {
        // Nothing follows the end, whatever comes.
        for event: Event in [
            .timer, .resume, .scale(workers: policy.maximumWorkers), .recycleAll, .shutdownNow, .shutdown(limit: 5), .drain, .kill(id(0)),
            .workerExited(id(0), started: 0, running: 0, cause: .status(0)), .workerReady(id(0)),
        ] {
            try apply(event)
        }
        try arrive()
        try apply(randomPolicy())
        guard living.isEmpty else { throw fail("\(living.count) calls never ended") }
        try checkStatus()
        try checkMetrics()
    }
}
