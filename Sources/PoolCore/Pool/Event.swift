/// What happened. Everything that the machine knows comes in through these.
///
/// Events that name a worker of an old generation, or a call that has ended, are dropped.
package enum Event: BitwiseCopyable, Sendable {
    /// A client asks. Answered, within the same `handle`, by `admit` or `refuse` as the first effect.
    case callArrived(Arrival)
    /// The client sent CANCEL: the call ends with `cancelled` unless its result is already on its way.
    case callCancelled(CallID)
    /// The client's connection is gone: nobody waits for this call any more. It ends without a reply.
    case callAbandoned(CallID)

    /// The process exists.
    case workerSpawned(WorkerID)
    /// No process could be made; `error` is the errno.
    case workerSpawnFailed(WorkerID, error: Int32)
    /// Import and set-up succeeded and its methods are known: it can be called.
    case workerReady(WorkerID)
    /// It reported that import or set-up failed (the shell keeps the traceback). Its exit follows.
    case workerSetupFailed(WorkerID)
    /// One reply frame. Replies come in the order of the call numbers.
    case workerReplied(WorkerID, number: UInt64, kind: ReplyKind, ran: Nanoseconds)
    case workerPonged(WorkerID)
    /// It broke the protocol; the shell has logged what it sent and reads it no more.
    case workerBroken(WorkerID)
    /// End of file on its socket, all replies having been read. Its exit is expected.
    case workerClosed(WorkerID)
    /// Reaped. The shell has read its replies to the last first; `started` and `running` are read from its page after its death.
    case workerExited(WorkerID, started: UInt64, running: UInt64, cause: ExitCause)
    /// Outcome of `revoke` and `takeBack`: what the page said after the revocation of calls `first...last` was stored. It says
    /// nothing of calls whose revocation is still to be stored.
    case workerRevoked(WorkerID, first: UInt64, last: UInt64, started: UInt64)
    /// Outcome of `measure`: private memory in bytes (smaps_rollup), 0 if it could not be read.
    case workerMeasured(WorkerID, privateBytes: UInt64)
    /// Outcome of `blame`: the hash of method and body of the call that a worker died with.
    case callBlamed(method: MethodID, hash: UInt64)

    /// `nextDeadline` has come (or earlier; a spurious one does nothing).
    case timer

    /// Wanted number of workers; clamped to the policy's bounds.
    case scale(workers: Int)
    /// Replace one worker, make before break.
    case recycle(WorkerID)
    /// Replace all workers, `surge` at a time.
    case recycleAll
    /// End a worker now, busy or not (an operator's `kill`).
    case kill(WorkerID)
    /// Refuse new calls, finish those that are here; undone by `resume`.
    case drain
    case resume
    /// Refuse new calls, give those that are here until `limit` after now, stop every worker, then `stopped`.
    case shutdown(limit: Nanoseconds)
    /// Kill what still runs, now: no call is finished, no grace is given.
    case shutdownNow
    /// Forget a quarantined body (hash 0: all).
    case clearQuarantine(hash: UInt64)
}

/// A call as it arrives.
package struct Arrival: BitwiseCopyable, Sendable {
    package var identity: IdentityID
    package var method: MethodID
    package var priority: Priority
    package var idempotent: Bool
    /// 0: none.
    package var session: UInt64
    /// For waiting and running together; 0: the policy's default. Cut to the policy's maximum.
    package var budget: Nanoseconds
    package var bodyBytes: UInt32
    /// Hash of method and body; needed only while `PoolMachine.wantsBodyHash`, otherwise 0.
    package var bodyHash: UInt64
    /// Only this worker may have it: poold's own calls. Neither counted among the callers' nor blamed for a death; taken also
    /// while the pool drains. `none`: any worker.
    package var target: WorkerID
    package init(
        identity: IdentityID, method: MethodID, priority: Priority = .normal, idempotent: Bool = false,
        session: UInt64 = 0,
        budget: Nanoseconds = 0, bodyBytes: UInt32 = 0, bodyHash: UInt64 = 0, target: WorkerID = .none
    ) {
        self.identity = identity
        self.method = method
        self.priority = priority
        self.idempotent = idempotent
        self.session = session
        self.budget = budget
        self.bodyBytes = bodyBytes
        self.bodyHash = bodyHash
        self.target = target
    }
}

/// What kind of reply a worker sent.
package enum ReplyKind: UInt8, BitwiseCopyable, Sendable {
    /// RESULT.
    case result
    /// ERROR of the application or its arguments: the worker is well.
    case error
    /// ERROR `cancelled` while it ran: the revocation reached it.
    case interrupted
    /// Refused unrun: revoked before it began.
    case unrunRevoked
    /// Refused unrun: expired before it began.
    case unrunExpired
}

/// How a worker's process ended.
package enum ExitCause: BitwiseCopyable, Sendable, Hashable {
    case status(Int32)
    case signal(Int32)
}
