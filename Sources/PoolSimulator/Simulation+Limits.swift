import PoolCore

/// What must hold after every event.
extension Simulation {
    /// A tick of the timer wheel, and one more.
    static let slack: UInt64 = 2 << 20

    mutating func check(after event: Event) throws(Violation) {
        if let arrival = arrivalAtHand { throw fail("the arrival of \(arrival) was neither admitted nor refused") }
        switch event {
        case .callArrived: try checkAdmission()
        case .callCancelled(let call), .callAbandoned(let call):
            if live(call) != nil { throw fail("\(call) was cancelled or abandoned and goes on") }
        case .timer:
            if isShuttingDown && told >= (Instant(nanoseconds: shutdownAt) + Self.slack).nanoseconds { isEnding = true }
            try checkNothingIsOverdue()
        case .shutdownNow:
            isEnding = true
            for serial in living where calls[serial].place == .waiting { throw fail("\(calls[serial].id) still waits after shutdownNow") }
        case .workerSpawned, .workerSpawnFailed, .workerReady, .workerSetupFailed, .workerReplied, .workerPonged, .workerBroken, .workerClosed, .workerExited,
            .workerRevoked, .workerMeasured, .callBlamed, .scale, .recycle, .recycleAll, .kill, .drain, .resume, .shutdown, .clearQuarantine:
            break
        }
        try checkAlways()
    }

    mutating func checkAlways() throws(Violation) {
        if isKillingAll { try checkNobodyIsSpared() }
        try checkNobodyWaitsForNothing()
        try checkTargetsAreServed()
        tallyState()
        if totals.events % 8 == 0 { try checkStatus() }
        if totals.events % 256 == 0 { try checkMetrics() }
    }

    private func checkNobodyIsSpared() throws(Violation) {
        for slot in workers.indices {
            switch workers[slot].phase {
            case .empty, .spawning, .killing: continue
            case .starting, .ready, .draining, .terminating: throw fail("\(id(slot)) is \(workers[slot].phase) after shutdownNow")
            }
        }
    }

    private mutating func checkAdmission() throws(Violation) {
        guard let serial = admittedAtHand else { return }
        admittedAtHand = nil
        guard calls[serial].place == .waiting else { return }
        if mustServe { throw fail("\(calls[serial].id) waits although a worker is idle") }
        let bytes = UInt64(calls[serial].bytes)
        guard waitedBefore.calls < policy.maximumQueuedCalls else { throw fail("\(waitedBefore.calls + 1) calls wait, \(policy.maximumQueuedCalls) may") }
        guard waitedBefore.bytes + bytes <= policy.maximumQueuedBytes, waitedBefore.ofIdentity + bytes <= policy.maximumQueuedBytesPerIdentity else {
            throw fail("too many bytes wait: \(waitedBefore.bytes) and \(bytes), \(waitedBefore.ofIdentity) of the identity")
        }
    }

    /// After `timer` nothing that was due is left over.
    private func checkNothingIsOverdue() throws(Violation) {
        for serial in living where calls[serial].deadline < told - min(told, Self.slack) {
            throw fail("\(calls[serial].id) has expired at \(calls[serial].deadline) and goes on")
        }
        for slot in workers.indices {
            let limit = workers[slot].phaseLimit
            if told - min(told, workers[slot].since) > (Instant(nanoseconds: limit) + Self.slack).nanoseconds {
                throw fail("\(id(slot)) is \(workers[slot].phase) for longer than \(limit) ns")
            }
        }
        if isShuttingDown && told > (Instant(nanoseconds: shutdownAt) + Self.slack).nanoseconds {
            for serial in living where calls[serial].place == .waiting { throw fail("\(calls[serial].id) waits after the shutdown's limit") }
        }
    }

    /// Work is conserved: no worker is idle while a call waits that any worker may have.
    private func checkNobodyWaitsForNothing() throws(Violation) {
        guard waitingCalls > 0, circuit == .closed, hasIdleWorker else { return }
        for serial in living
        where calls[serial].place == .waiting && calls[serial].target == .none && (policy.affinity != .require || calls[serial].session == 0) {
            throw fail("\(calls[serial].id) waits although a worker is idle")
        }
    }

    mutating func checkStatus() throws(Violation) {
        let status = machine.status(now: Instant(nanoseconds: told))
        guard status.queuedCalls == waitingCalls, status.queuedBytes == waitingBytes else {
            throw fail("status says \(status.queuedCalls) calls and \(status.queuedBytes) bytes wait; it is \(waitingCalls) and \(waitingBytes)")
        }
        guard status.wanted == wanted, status.health == health, status.circuit == circuit else {
            throw fail("status \(status.wanted), \(status.health), \(status.circuit); it is \(wanted), \(health), \(circuit)")
        }
        if isShuttingDown && health != .draining && health != .stopped { throw fail("health is \(health) during a shutdown") }
        var outstanding = 0
        var alive = 0
        for worker in workers where worker.phase != .empty {
            outstanding += worker.outstanding
            alive += 1
        }
        guard status.outstanding == outstanding, status.workers.count == alive else {
            throw fail("status says \(status.outstanding) outstanding, \(status.workers.count) workers; it is \(outstanding) and \(alive)")
        }
        for entry in status.workers {
            let worker = workers[Int(entry.worker.slot)]
            guard entry.worker.generation == worker.generation, entry.phase == worker.phase, entry.outstanding == worker.outstanding,
                entry.since.nanoseconds == worker.since
            else { throw fail("status of a worker is \(entry); it is \(worker.phase) since \(worker.since) with \(worker.outstanding) outstanding") }
        }
        // Those of waiting calls come on top; what was there when the limit was lowered may only become less.
        guard status.sessions - policy.maximumQueuedCalls <= max(0, policy.maximumSessions) || status.sessions <= sessionsLeftOver else {
            throw fail("\(status.sessions) sessions")
        }
        sessionsLeftOver = min(sessionsLeftOver, status.sessions + waitingCalls)
        try checkCounters(status.counters)
    }

    private func checkCounters(_ said: PoolCounters) throws(Violation) {
        var expected = counters
        // Not in the model's account.
        expected.startFailures = said.startFailures
        expected.recycled = said.recycled
        guard said == expected else { throw fail("the counters are \(said); they should be \(expected)") }
        let ends = said.refused + said.results + said.errors + said.timeouts + said.cancelled + said.abandoned + said.workerLost + said.dropped
        guard ends + UInt64(living.count - livingTargeted) == said.arrived else {
            throw fail("\(said.arrived) calls arrived, \(ends) ended, \(living.count) live")
        }
    }
}
