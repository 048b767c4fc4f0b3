/// Everything that steers one pool, as plain values. Spans are nanoseconds; 0 switches an optional rule off.
package struct PoolPolicy: Sendable, Equatable {
    // Bounds of the tables.
    package static let maximumIdentities = 4096
    package static let maximumMethods = 1024
    package static let maximumWorkerSlots = 512
    /// Two years and a quarter: sums and varied values do not overflow.
    static let longest: Nanoseconds = 1 << 56
    /// The revocation ring of the execution page.
    package static let maximumWindow = 64

    // Size.
    package var workers = 2
    package var minimumWorkers = 0
    package var maximumWorkers = 64
    /// Extra processes while replacing. At least 1.
    package var surge = 1
    /// Workers that may be starting at the same time.
    package var startingAtOnce = 4

    // Sending ahead.
    /// Calls a worker may hold, running and sent ahead; 1 sends nothing ahead; at most `maximumWindow`.
    package var window = 16
    /// A call is sent ahead only where it will begin within this span, by the measured times.
    package var aheadSpan: Nanoseconds = 1_000_000

    // Queue.
    package var maximumQueuedCalls = 32_768
    package var maximumQueuedBytes: UInt64 = 256 << 20
    package var maximumQueuedBytesPerIdentity: UInt64 = 128 << 20
    package var overload = OverloadPolicy.refuse
    /// CoDel's target and interval, used by `codel` and `newestFirst`.
    package var overloadTarget: Nanoseconds = 50_000_000
    package var overloadInterval: Nanoseconds = 1_000_000_000

    // Budgets.
    package var defaultBudget: Nanoseconds = 60_000_000_000
    package var maximumBudget: Nanoseconds = 24 * 3_600_000_000_000
    package var maximumAttempts = 3

    // What follows when a running call's budget is over.
    package var overrun = OverrunPolicy.cancel
    package var hangAfter: Nanoseconds = 5_000_000_000
    /// Kills of hung workers allowed: a bucket of this many, refilled one by one every `killRefill`.
    package var killAllowance = 4
    package var killRefill: Nanoseconds = 10_000_000_000

    // Life of a worker.
    package var startTimeout: Nanoseconds = 60_000_000_000
    package var drainGrace: Nanoseconds = 60_000_000_000
    package var terminateGrace: Nanoseconds = 5_000_000_000
    package var maximumAge: Nanoseconds = 0
    package var maximumCalls: UInt64 = 0
    package var maximumPrivateBytes: UInt64 = 0
    package var measureInterval: Nanoseconds = 30_000_000_000
    /// Part of age and calls by which each worker's limit is varied, in percent.
    package var recycleJitterPercent: UInt64 = 10

    // Failures.
    package var backOffBase: Nanoseconds = 100_000_000
    package var backOffMaximum: Nanoseconds = 30_000_000_000
    /// A worker that lived this long clears the back-off.
    package var stableAfter: Nanoseconds = 10_000_000_000
    /// Failed starts in a row, with no worker ready, after which calls are refused instead of queued.
    package var unavailableAfter = 3
    /// Worker deaths in a row without a result between them that open the circuit; 0: never.
    package var circuitFailures = 5
    package var circuitSuccesses = 3
    package var circuitOpenFor: Nanoseconds = 10_000_000_000
    /// Deaths blamed on the same method and body before it is refused; 0: never.
    package var quarantineDeaths = 2
    package var quarantineFor: Nanoseconds = 3_600_000_000_000
    package var healthInterval: Nanoseconds = 10_000_000_000
    package var healthTimeout: Nanoseconds = 5_000_000_000
    package var healthFailures = 3

    // Sessions.
    package var affinity = Affinity.none
    package var sessionTimeToLive: Nanoseconds = 900_000_000_000
    package var maximumSessions = 10_000
    package var maximumSessionsPerIdentity = 10_000

    package init() {}

    /// Slots of the worker table: those that serve, and their replacements.
    package var workerSlots: Int { maximumWorkers + surge }

    /// Calls that the pool may hold: those that wait, and those at workers.
    package var callBound: Int { maximumQueuedCalls + workerSlots * window }

    /// With every value inside the bounds of the tables. The configuration refuses such values with a word; this is the last guard.
    package var clamped: PoolPolicy {
        var policy = self
        policy.surge = min(max(surge, 1), 64)
        policy.maximumWorkers = min(max(maximumWorkers, 0), Self.maximumWorkerSlots - policy.surge)
        policy.minimumWorkers = min(max(minimumWorkers, 0), policy.maximumWorkers)
        policy.window = min(max(window, 1), Self.maximumWindow)
        policy.startingAtOnce = max(startingAtOnce, 1)
        policy.maximumQueuedCalls = min(max(maximumQueuedCalls, 0), 1 << 22)
        policy.maximumBudget = max(maximumBudget, 1)
        policy.defaultBudget = max(defaultBudget, 1)
        policy.aheadSpan = min(aheadSpan, 3_600_000_000_000)
        policy.maximumAge = min(maximumAge, Self.longest)
        policy.maximumCalls = min(maximumCalls, Self.longest)
        policy.healthFailures = min(max(healthFailures, 1), 200)
        policy.healthTimeout = max(healthTimeout, 1)
        policy.backOffBase = min(max(backOffBase, 1_000_000), 3_600_000_000_000)
        policy.backOffMaximum = max(backOffMaximum, policy.backOffBase)
        policy.overloadInterval = max(overloadInterval, 1)
        policy.measureInterval = max(measureInterval, 1_000_000)
        policy.killRefill = min(killRefill, 86_400_000_000_000)
        policy.killAllowance = min(max(killAllowance, 1), 1 << 16)
        return policy
    }
}

package enum OverloadPolicy: UInt8, Sendable, Equatable, CaseIterable {
    /// First come first served; a call whose predicted wait exceeds its budget is refused at the door.
    case refuse
    /// CoDel: when the wait stays above the target for an interval, the oldest are shed at a growing rate.
    case codel
    /// First come first served until the wait stays above the target for an interval; from then on the newest is served first.
    case newestFirst
}

package enum OverrunPolicy: UInt8, Sendable, Equatable, CaseIterable {
    /// Interrupt the call; a worker that does not return within `hangAfter` is replaced.
    case cancel
    /// Interrupt and replace the worker in any case.
    case replace
    /// Let it finish; nobody hears of the result.
    case finish
}

package enum Affinity: UInt8, Sendable, Equatable, CaseIterable {
    case none
    /// The session's last worker if it has room, otherwise any.
    case prefer
    /// Only that worker; `session_lost` once it is gone.
    case require
}
