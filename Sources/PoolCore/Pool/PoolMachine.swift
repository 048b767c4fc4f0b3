/// One pool as a deterministic state machine: no I/O, no clock, no global randomness, no logging.
///
/// What belongs together stands in one file each: `+Calls` (arrival, cancel, expiry, end), `+Dispatch` (which call to which
/// worker, sending ahead, taking back), `+Workers` (birth, readiness, death), `+Retirement` (scale-down, recycling, stop),
/// `+Failures` (back-off, circuit, quarantine, health), `+Sessions`, `+Targets` (calls for one worker alone), `+Timers`,
/// `+Configure` (another policy while it runs), `+Encoding`, `+Status`, `+Stats`.
package struct PoolMachine: ~Copyable {
    package internal(set) var policy: PoolPolicy
    var random: RandomSource
    /// The latest `now`; an earlier one does not turn time back.
    var now = Instant.zero

    var calls: CallTable
    var queue = FairQueue()
    var times = ServiceTimes()
    var timers: TimerWheel
    var sessions = SessionTable()

    var workers: [WorkerRecord]
    /// `window` entries per slot, by call number.
    var sent: [SentCall]
    /// Grows with the largest window that the pool ever had.
    var ringMask: Int
    /// Slots at and above this one have never been used.
    var usedSlots = 0
    var idleHead = WorkerRecord.noLink
    var idleTail = WorkerRecord.noLink
    var readyCount = 0
    var startingCount = 0
    /// Calls at workers, and their estimated work.
    var outstandingCalls = 0
    var outstandingWork: Nanoseconds = 0
    /// Calls that wait for one worker alone.
    var pinnedCalls = 0

    var wanted: Int
    var wasReady = false
    var draining = false
    var shuttingDown = false
    /// The limit of a shutdown is over: nothing more is awaited.
    var ending = false
    /// `shutdownNow`: nobody gets a grace any more.
    var killingAll = false
    var isStopped = false
    var health = PoolHealth.starting

    // Failures.
    var failedStarts = 0
    var backOffUntil = Instant.zero
    /// Restart allowance: a token bucket, counted in nanoseconds of refill.
    var restartDebtUntil = Instant.zero
    var killDebtUntil = Instant.zero
    package internal(set) var circuit = CircuitState.closed
    var circuitCount = 0
    var circuitUntil = Instant.zero
    var circuitSpan: Nanoseconds = 0
    /// The call that tries whether the circuit may close.
    var probe = CallID.none
    var suspects: [Suspect] = []

    // Overload.
    var aboveTargetSince = Instant.never
    var overloaded = false
    var shedNext = Instant.never
    var shedCount: UInt64 = 0

    var counters = PoolCounters()
    var metrics = PoolMetrics()
    /// Ready workers with at least one call.
    var busyCount = 0

    package init(policy: PoolPolicy, seed: UInt64) {
        let policy = policy.clamped
        self.policy = policy
        random = RandomSource(state: seed)
        let slots = policy.maximumWorkers + policy.surge
        let stride = Self.ringStride(window: policy.window)
        ringMask = stride - 1
        workers = Array(repeating: WorkerRecord(), count: slots)
        sent = Array(repeating: SentCall(), count: slots * stride)
        calls = CallTable(bound: policy.callBound)
        timers = TimerWheel(nodes: PoolTimer.count + slots * WorkerTimer.count)
        wanted = min(max(policy.workers, policy.minimumWorkers), policy.maximumWorkers)
        circuitSpan = policy.circuitOpenFor
    }

    /// Takes one event to its end and appends what is to be done. The first event of a pool's life may be `timer`, which
    /// starts its workers.
    package mutating func handle(_ event: Event, now: Instant, into effects: inout EffectBuffer) {
        if now > self.now { self.now = now }
        advanceMetrics()
        if isStopped { return afterTheEnd(event, &effects) }
        switch event {
        case .callArrived(let arrival):
            arrive(arrival, &effects)
        case .workerReplied(let worker, let number, let kind, let ran):
            replied(worker, number, kind, ran, &effects)
        case .callCancelled(let call):
            cancel(call, .cancelled, &effects)
        case .callAbandoned(let call):
            cancel(call, .abandoned, &effects)
        case .timer:
            expireTimers(&effects)
        case .workerRevoked(let worker, let first, let last, let started):
            revoked(worker, first, last, started, &effects)
        case .workerSpawned(let worker):
            spawned(worker, &effects)
        case .workerSpawnFailed(let worker, _):
            spawnFailed(worker, &effects)
        case .workerReady(let worker):
            becameReady(worker, &effects)
        case .workerSetupFailed(let worker):
            setupFailed(worker, &effects)
        case .workerPonged(let worker):
            ponged(worker)
        case .workerBroken(let worker):
            deafened(worker, .protocolFault, &effects)
        case .workerClosed(let worker):
            deafened(worker, .socketClosed, &effects)
        case .workerExited(let worker, let started, let running, let cause):
            exited(worker, started: started, running: running, cause, &effects)
        case .workerMeasured(let worker, let privateBytes):
            measured(worker, privateBytes, &effects)
        case .callBlamed(let method, let hash):
            blamed(method, hash, &effects)
        case .scale(let workers):
            scale(to: workers, &effects)
        case .recycle(let worker):
            recycle(worker, .operatorRecycle, &effects)
        case .recycleAll:
            recycleAll(&effects)
        case .kill(let worker):
            killWorker(worker, &effects)
        case .drain:
            draining = true
            reconcile(&effects)
        case .resume:
            draining = shuttingDown
            reconcile(&effects)
        case .shutdown(let limit):
            shutDown(within: limit, &effects)
        case .shutdownNow:
            endNow(killing: true, &effects)
        case .clearQuarantine(let hash):
            suspects.removeAll { hash == 0 || $0.hash == hash }
        }
        settle(&effects)
    }

    /// Stopped pools do nothing but refuse.
    private mutating func afterTheEnd(_ event: Event, _ effects: inout EffectBuffer) {
        guard case .callArrived(let arrival) = event else { return }
        arrive(arrival, &effects)
    }

    /// When `timer` is due; `nil`: nothing waits.
    package var nextDeadline: Instant? { timers.nextDeadline }

    // MARK: - Workers by id

    func id(_ slot: Int) -> WorkerID { WorkerID(slot: UInt16(slot), generation: workers[slot].generation) }

    /// The slot of a worker that still is the one meant.
    func live(_ worker: WorkerID) -> Int? {
        let slot = Int(worker.slot)
        guard slot < workers.count, workers[slot].generation == worker.generation, workers[slot].phase != .empty else {
            return nil
        }
        return slot
    }

    /// Whether new calls may go to this worker.
    package func isServing(_ worker: WorkerID) -> Bool {
        guard let slot = live(worker) else { return false }
        return workers[slot].phase == .ready && !workers[slot].leaving && !workers[slot].deaf
    }

    func ring(_ slot: Int, _ number: UInt64) -> Int {
        slot * (ringMask + 1) + (Int(truncatingIfNeeded: number) & ringMask)
    }

    /// After every event: what follows from the new state as a whole.
    mutating func settle(_ effects: inout EffectBuffer) {
        if shuttingDown { continueShutdown(&effects) }
        publishHealth(&effects)
    }
}
