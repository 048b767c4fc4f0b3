/// What `poolctl status` shows of one pool: a copy, made on request.
package struct PoolStatus: Sendable {
    package struct Worker: Sendable {
        package var worker: WorkerID
        package var phase: WorkerPhase
        package var cause: WorkerCause
        package var outstanding: Int
        package var calls: UInt64
        package var since: Instant
        package var privateBytes: UInt64
        package var healthFailures: Int
        /// A call outran its budget here and has not returned.
        package var isStuck = false
        package init(
            worker: WorkerID, phase: WorkerPhase, cause: WorkerCause, outstanding: Int, calls: UInt64, since: Instant, privateBytes: UInt64,
            healthFailures: Int
        ) {
            self.worker = worker
            self.phase = phase
            self.cause = cause
            self.outstanding = outstanding
            self.calls = calls
            self.since = since
            self.privateBytes = privateBytes
            self.healthFailures = healthFailures
        }
    }
    package var health = PoolHealth.starting
    package var circuit = CircuitState.closed
    package var wanted = 0
    package var workers: [Worker] = []
    package var queuedCalls = 0
    package var queuedBytes: UInt64 = 0
    package var outstanding = 0
    package var sessions = 0
    package var quarantined = 0
    package var predictedWait: Nanoseconds = 0
    package var counters = PoolCounters()
    package init() {}
}

/// Counted since the pool began; every admitted or refused call is in exactly one of the ends.
package struct PoolCounters: Sendable, Equatable, BitwiseCopyable {
    package var arrived: UInt64 = 0
    package var refused: UInt64 = 0
    package var results: UInt64 = 0
    package var errors: UInt64 = 0
    package var timeouts: UInt64 = 0
    package var cancelled: UInt64 = 0
    package var abandoned: UInt64 = 0
    package var workerLost: UInt64 = 0
    package var dropped: UInt64 = 0
    package var retried: UInt64 = 0
    package var takenBack: UInt64 = 0
    package var spawned: UInt64 = 0
    package var startFailures: UInt64 = 0
    package var deaths: UInt64 = 0
    package var recycled: UInt64 = 0
    package var kills: UInt64 = 0
    package init() {}
}
