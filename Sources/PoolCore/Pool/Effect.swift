/// What is to be done. Trivial values; the shell maps the ids to connections, buffers and processes.
package enum Effect: BitwiseCopyable, Sendable, Hashable {
    /// The arriving call is in the table: keep its body and caller under this id until `deliver`, `finish` or `release`.
    case admit(CallID)
    /// The arriving call ends here.
    case refuse(Refusal)
    /// Append the call to the worker's socket with this number and absolute deadline. The body stays kept.
    case send(CallID, to: WorkerID, number: UInt64, deadline: Instant)
    /// Forward the reply at hand to the caller; the call has ended.
    case deliver(CallID)
    /// Answer the caller with an error of poold's own; the call has ended.
    case finish(CallID, Outcome)
    /// The call has ended and nobody wants a reply: let go of its body.
    case release(CallID)
    /// Hash the method and body of this call and come back with `callBlamed`. Comes before the call's end.
    case blame(CallID, method: MethodID)

    /// Store the revocation of one call in the worker's page, fence, read `started`; when the call has begun and `interrupt`,
    /// signal the worker. Come back with `workerRevoked`.
    case revoke(WorkerID, number: UInt64, interrupt: Bool)
    /// Revoke calls `first...last`, fence, read `started`, come back with `workerRevoked`. Never interrupts.
    case takeBack(WorkerID, first: UInt64, last: UInt64)

    /// Make a process for this worker; comes back as `workerSpawned` or `workerSpawnFailed`.
    case spawn(WorkerID)
    case ping(WorkerID)
    /// Send DRAIN: it ends after what it was sent.
    case drainWorker(WorkerID)
    /// SIGTERM to the worker.
    case terminate(WorkerID)
    /// SIGKILL to its whole group.
    case kill(WorkerID)
    /// Read its private memory; comes back as `workerMeasured`.
    case measure(WorkerID)
    /// For the log, the counters and whoever watches.
    case publish(Notice)
    /// After `shutdown`: no call and no worker is left.
    case stopped
}

/// Why an arriving call was not taken.
package struct Refusal: BitwiseCopyable, Sendable, Hashable {
    package enum Reason: UInt8, BitwiseCopyable, Sendable, CaseIterable {
        /// The queue's bound in calls.
        case queueFull
        /// The bound in bytes, of the pool or of the identity.
        case bytesFull
        /// The predicted wait, and what the method takes, exceed the budget.
        case wouldExpire
        case draining
        /// No worker can start, or the circuit breaker is open.
        case unavailable
        case quarantined
        /// Affinity `require` and the session's worker is gone; or the call's only worker is.
        case sessionLost
        /// Sessions of the pool or the identity.
        case sessionQuota
    }
    package var reason: Reason
    /// How long this call would have waited, as predicted; also the retry-after where there is no better one.
    package var predictedWait: Nanoseconds
    /// How long it would rarely have outrun then; 0: unknown, or not looked at.
    package var expectedRun: Nanoseconds
    package var retryAfter: Nanoseconds
}

/// How poold itself ends an admitted call.
package enum Outcome: UInt8, BitwiseCopyable, Sendable, Hashable, CaseIterable {
    /// Expired; no worker had begun it.
    case timeoutWaiting
    /// Expired while it ran.
    case timeoutRunning
    case cancelledWaiting
    case cancelledRunning
    /// Its worker ended after it began.
    case workerLost
    /// The pool shut down before it began.
    case draining
    /// Dropped by the overload policy.
    case shed
    /// No worker can start.
    case unavailable
    /// Affinity `require` and the session's worker ended before it began; or the only worker that the call was for.
    case sessionLost

    /// The same end for a call that has begun once.
    var afterBeginning: Outcome {
        switch self {
        case .timeoutWaiting, .timeoutRunning: return .timeoutRunning
        case .cancelledWaiting, .cancelledRunning: return .cancelledRunning
        case .workerLost, .draining, .shed, .unavailable, .sessionLost: return .workerLost
        }
    }

    /// Whether the caller is told that the call may have had effects.
    package var began: Bool {
        switch self {
        case .timeoutRunning, .cancelledRunning, .workerLost: return true
        case .timeoutWaiting, .cancelledWaiting, .draining, .shed, .unavailable, .sessionLost: return false
        }
    }
}

/// What an operator, a log or a metric may want to know. Not needed for correctness.
package enum Notice: BitwiseCopyable, Sendable, Hashable {
    case worker(WorkerID, WorkerPhase, WorkerCause)
    case poolHealth(PoolHealth)
    case circuit(CircuitState)
    case quarantined(method: MethodID, hash: UInt64)
    case scaled(from: Int, to: Int)
    /// A worker's page held numbers that were never sent.
    case pageScribbled(WorkerID)
    /// Back-off before the next spawn after a failed start.
    case backingOff(Nanoseconds)
    case callRetried(CallID, attempt: Int)
    case takenBack(WorkerID, calls: Int)
    /// A hung worker was spared because the kill allowance is spent.
    case killWithheld(WorkerID)
}

package enum WorkerPhase: UInt8, BitwiseCopyable, Sendable, Hashable, CaseIterable {
    case empty, spawning, starting, ready, draining, terminating, killing
}

/// Why a worker changed its phase.
package enum WorkerCause: UInt8, BitwiseCopyable, Sendable, Hashable, CaseIterable {
    case wanted, spawnFailed, setupFailed, startTimeout, becameReady, scaledDown, age, calls, memory, operatorRecycle,
        operatorKill, hung, unhealthy, protocolFault, socketClosed, exited, crashed, shutdown, graceOver, replaced
}

package enum PoolHealth: UInt8, BitwiseCopyable, Sendable, Hashable {
    /// Serving with fewer workers than wanted, or none yet.
    case starting
    case ready
    case degraded
    /// Nothing can be served: every start failed.
    case unavailable
    case draining
    case stopped
}

package enum CircuitState: UInt8, BitwiseCopyable, Sendable, Hashable {
    case closed, open, halfOpen
}

/// Effects of one or more events in their order. Reused; the shell empties it.
package struct EffectBuffer: ~Copyable {
    package var effects: [Effect]
    package init(capacity: Int = 256) {
        effects = []
        effects.reserveCapacity(capacity)
    }
    @inlinable package mutating func append(_ effect: Effect) { effects.append(effect) }
    package var count: Int { effects.count }
    package mutating func removeAll() { effects.removeAll(keepingCapacity: true) }
}
