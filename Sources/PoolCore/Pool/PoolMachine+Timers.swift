/// Timers of the pool as a whole.
enum PoolTimer: Int, CaseIterable {
    /// Back-off or restart allowance: workers may be spawned again.
    case reconcile
    case circuit
    case sessions
    case shutdown
    /// Look whether calls sent ahead wait behind one that takes longer than thought.
    case rebalance
    static let count = 5
}

/// Timers of each worker.
enum WorkerTimer: Int, CaseIterable {
    /// Start, drain and terminate have limits.
    case phase
    case health
    case hang
    /// Age, and when to measure its memory.
    case upkeep
    static let count = 4
}

extension PoolMachine {
    func node(_ timer: PoolTimer) -> Int { timer.rawValue }
    func node(_ slot: Int, _ timer: WorkerTimer) -> Int { PoolTimer.count + slot * WorkerTimer.count + timer.rawValue }
    func node(call index: Int) -> Int { PoolTimer.count + workers.count * WorkerTimer.count + index }

    mutating func arm(_ timer: PoolTimer, at deadline: Instant) { timers.arm(node(timer), at: deadline) }
    mutating func arm(_ slot: Int, _ timer: WorkerTimer, at deadline: Instant) {
        timers.arm(node(slot, timer), at: deadline)
    }
    mutating func disarm(_ slot: Int, _ timer: WorkerTimer) { timers.disarm(node(slot, timer)) }
    mutating func disarmAll(_ slot: Int) {
        for timer in WorkerTimer.allCases { disarm(slot, timer) }
    }

    mutating func expireTimers(_ effects: inout EffectBuffer) {
        if !wasReady && usedSlots == 0 { reconcile(&effects) }
        while let fired = timers.expire(now: now) {
            if fired < PoolTimer.count {
                switch PoolTimer(rawValue: fired) {
                case .reconcile: reconcile(&effects)
                case .circuit: circuitTimer(&effects)
                case .sessions: expireSessions(&effects)
                case .shutdown: endNow(killing: false, &effects)
                case .rebalance: rebalance(&effects)
                case nil: preconditionFailure("pool timer \(fired) does not exist")
                }
                continue
            }
            let rest = fired - PoolTimer.count
            if rest < workers.count * WorkerTimer.count {
                let slot = rest / WorkerTimer.count
                switch WorkerTimer(rawValue: rest % WorkerTimer.count) {
                case .phase: phaseTimer(slot, &effects)
                case .health: healthTimer(slot, &effects)
                case .hang: hangTimer(slot, &effects)
                case .upkeep: upkeepTimer(slot, &effects)
                case nil: preconditionFailure("worker timer \(rest) does not exist")
                }
                continue
            }
            expireCall(rest - workers.count * WorkerTimer.count, &effects)
        }
    }
}
