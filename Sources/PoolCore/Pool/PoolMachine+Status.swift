extension PoolMachine {
    package func status(now: Instant) -> PoolStatus {
        var status = PoolStatus()
        status.health = health
        status.circuit = circuit
        status.wanted = wanted
        for slot in 0..<usedSlots where workers[slot].phase != .empty {
            let worker = workers[slot]
            status.workers.append(
                PoolStatus.Worker(
                    worker: id(slot), phase: worker.phase, cause: worker.cause, outstanding: worker.outstanding, calls: worker.calls,
                    since: worker.since,
                    privateBytes: worker.privateBytes, healthFailures: Int(worker.healthFailures)))
            status.workers[status.workers.count - 1].isStuck = worker.overrun != 0
        }
        status.queuedCalls = queue.count + pinnedCalls
        status.queuedBytes = queue.bytes
        status.outstanding = outstandingCalls
        status.sessions = sessions.count
        for suspect in suspects where Int(suspect.deaths) >= policy.quarantineDeaths {
            _ = suspect
            status.quarantined += 1
        }
        status.predictedWait = readyCount > 0 ? (queue.work &+ outstandingWork) / UInt64(readyCount) : 0
        status.counters = counters
        return status
    }
}
