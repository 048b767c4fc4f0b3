import PoolCore

/// What kind of world a seed makes: policy, load and how much goes wrong.
struct World {
    var policy: PoolPolicy
    var identities: Int
    var methods: Int
    /// Call durations lie below 2 to the power of this, in nanoseconds; most spans of a world are related to it.
    var serviceBits: Int
    /// Nearly constant durations allow sending ahead.
    var isSteady: Bool
    var slowPercent: Int
    var arrivalGap: UInt64
    var burst: Int
    var sessionPercent: Int
    var idempotentPercent: Int
    var budgetBits: Int
    var bootBits: Int
    var operationGap: UInt64
    var cancelPercent: Int
    /// A value of the policy is beyond what a configuration may hold.
    var hasAbsurdPolicy = false
    var faults: Faults

    /// Each is a share; 0 switches the fault off without changing what else is drawn.
    struct Faults {
        var crashPerMille = 0
        var idleCrashPerMille = 0
        var poisonPerMille = 0
        var stallPerMille = 0
        var workerStallPerMille = 0
        var misbehavePerMille = 0
        var scribblePerMille = 0
        var stubbornPercent = 0
        var ignoreTermPercent = 0
        var spawnFailPercent = 0
        var setupFailPercent = 0
        var brokenModulePercent = 0
        var clockLeapPerMille = 0
        var clockBehindPerMille = 0
        var lateTimerPercent = 0
        var operatorPercent = 0
        var configurePercent = 0
        var stalePercent = 0

        /// Every fault by name: for a smaller world in which a failure remains.
        static let all: [(name: String, path: any WritableKeyPath<Faults, Int> & Sendable)] = [
            ("crash", \.crashPerMille), ("idle-crash", \.idleCrashPerMille), ("poison", \.poisonPerMille), ("stall", \.stallPerMille),
            ("worker-stall", \.workerStallPerMille), ("misbehave", \.misbehavePerMille), ("scribble", \.scribblePerMille),
            ("stubborn", \.stubbornPercent), ("ignore-term", \.ignoreTermPercent), ("spawn-fail", \.spawnFailPercent),
            ("setup-fail", \.setupFailPercent), ("broken-module", \.brokenModulePercent), ("clock-leap", \.clockLeapPerMille),
            ("clock-behind", \.clockBehindPerMille), ("late-timer", \.lateTimerPercent), ("operator", \.operatorPercent), ("configure", \.configurePercent),
            ("stale", \.stalePercent),
        ]

        init(_ random: inout SeededRandom) {
            // A third of the worlds is nearly well: faults must not hide what goes wrong without them.
            let harm = random.below(3)
            crashPerMille = harm * random.below(40)
            idleCrashPerMille = harm * random.below(10)
            poisonPerMille = harm * random.below(20)
            stallPerMille = harm * random.below(10)
            workerStallPerMille = harm * random.below(5)
            misbehavePerMille = harm * random.below(6)
            scribblePerMille = harm * random.below(6)
            stubbornPercent = random.below(50)
            ignoreTermPercent = random.below(40)
            spawnFailPercent = harm * random.below(15)
            setupFailPercent = harm * random.below(15)
            brokenModulePercent = harm == 2 ? 10 : 0
            clockLeapPerMille = harm * random.below(4)
            clockBehindPerMille = harm * random.below(10)
            lateTimerPercent = harm * random.below(20)
            operatorPercent = random.below(100)
            stalePercent = random.below(40)
            configurePercent = random.chance(50) ? 0 : random.below(60)
        }
    }

    init(_ random: inout SeededRandom) {
        serviceBits = 12 + random.below(22)
        isSteady = random.chance(50)
        var policy = World.policy(&random, serviceBits: serviceBits)
        if random.chance(3) {
            World.exaggerate(&policy, &random)
            hasAbsurdPolicy = true
        }
        self.policy = policy
        identities = 1 + random.below(4)
        methods = 1 + random.below(4)
        slowPercent = random.chance(40) ? random.below(20) : 0
        burst = random.chance(40) ? 1 + random.below(12) : 1
        // From a fifth of what the workers can do to four times as much; mean duration is about 2 ^ bits / bits.
        let work = (UInt64(1) << UInt64(serviceBits)) / UInt64(isSteady ? 2 : serviceBits)
        let load = UInt64([20, 50, 80, 100, 150, 400][random.below(6)])
        arrivalGap = 1 + work * UInt64(1 + burst / 2) * 100 / load / UInt64(max(1, policy.workers))
        sessionPercent = random.below(100)
        idempotentPercent = random.below(100)
        budgetBits = serviceBits + random.below(10)
        bootBits = max(4, serviceBits + random.below(8) - 3)
        self.policy = World.paced(self.policy, serviceBits: serviceBits, bootBits: bootBits)
        operationGap = arrivalGap * UInt64(5 + random.below(60))
        cancelPercent = random.below(25)
        faults = Faults(&random)
        // Who may take for ever to end must at least heed.
        if hasAbsurdPolicy { faults.ignoreTermPercent = 0 }
    }

    /// Duties that come many times while a worker starts are only noise.
    static func paced(_ policy: PoolPolicy, serviceBits: Int, bootBits: Int) -> PoolPolicy {
        var policy = policy
        let least = UInt64(1) << UInt64(max(20, bootBits - 2, serviceBits - 1))
        if policy.healthInterval > 0 { policy.healthInterval = max(policy.healthInterval, least) }
        if policy.maximumAge > 0 { policy.maximumAge = max(policy.maximumAge, 32 * least) }
        policy.measureInterval = max(policy.measureInterval, least)
        policy.healthTimeout = max(policy.healthTimeout, least, 1 << UInt64(serviceBits - 3))
        return policy
    }

    static func policy(_ random: inout SeededRandom, serviceBits: Int) -> PoolPolicy {
        /// A span that has to do with how long calls take, sometimes 0.
        func span(_ more: Int, _ random: inout SeededRandom) -> UInt64 { random.anySpan(maximumBits: serviceBits + more) }
        var policy = PoolPolicy()
        policy.maximumWorkers = random.chance(5) ? random.below(2) : 1 + random.below(random.chance(20) ? 16 : 6)
        policy.workers = random.below(policy.maximumWorkers + 1)
        if random.chance(70) { policy.workers = max(1, policy.workers) }
        policy.minimumWorkers = random.chance(30) ? random.below(policy.workers + 1) : 0
        policy.surge = 1 + random.below(2)
        policy.startingAtOnce = 1 + random.below(4)
        policy.window = [1, 2, 4, 8, 16, 64][random.below(6)]
        policy.aheadSpan = random.chance(60) ? UInt64(4) << UInt64(serviceBits) : span(2, &random)
        policy.maximumQueuedCalls = random.chance(30) ? random.below(8) : 32 + random.below(200)
        policy.maximumQueuedBytes = random.chance(20) ? 2_000 : 1 << 20
        policy.maximumQueuedBytesPerIdentity = random.chance(20) ? 1_000 : 1 << 20
        policy.overload = OverloadPolicy.allCases[random.below(3)]
        policy.overloadTarget = span(3, &random)
        policy.overloadInterval = span(5, &random)
        policy.defaultBudget = 1 + span(10, &random)
        policy.maximumBudget = random.chance(10) ? span(6, &random) : 24 * 3_600_000_000_000
        policy.maximumAttempts = 1 + random.below(4)
        policy.overrun = OverrunPolicy.allCases[random.below(3)]
        policy.hangAfter = span(6, &random)
        policy.killAllowance = 1 + random.below(4)
        policy.killRefill = random.chance(20) ? 0 : span(8, &random)
        policy.startTimeout = (UInt64(1) << UInt64(serviceBits)) + span(9, &random)
        policy.drainGrace = span(8, &random)
        policy.terminateGrace = span(8, &random)
        if random.chance(25) { policy.maximumAge = 1 + span(9, &random) }
        if random.chance(25) { policy.maximumCalls = 1 + random.anySpan(maximumBits: 6) }
        if random.chance(15) { policy.maximumPrivateBytes = 1 << 20 }
        policy.measureInterval = span(8, &random)
        policy.recycleJitterPercent = UInt64(random.below(3) * 10)
        policy.backOffBase = random.anySpan(maximumBits: serviceBits + 4)
        policy.backOffMaximum = random.anySpan(maximumBits: serviceBits + 7)
        policy.stableAfter = span(8, &random)
        policy.unavailableAfter = random.below(5)
        policy.circuitFailures = random.chance(50) ? 0 : 1 + random.below(6)
        policy.circuitSuccesses = random.below(4)
        policy.circuitOpenFor = span(6, &random)
        policy.quarantineDeaths = random.below(4)
        policy.quarantineFor = random.chance(70) ? 3_600_000_000_000 : span(10, &random)
        policy.healthInterval = random.chance(50) ? 0 : 1 + span(8, &random)
        policy.healthFailures = random.below(4)
        policy.healthTimeout = span(6, &random)
        policy.affinity = Affinity.allCases[random.below(3)]
        policy.sessionTimeToLive = random.chance(50) ? 0 : span(10, &random)
        policy.maximumSessions = random.chance(30) ? random.below(6) : 1000
        policy.maximumSessionsPerIdentity = random.chance(30) ? random.below(4) : 1000
        return policy
    }

    /// A value that no sane configuration holds: `clamped` or the machine must bear it.
    static func exaggerate(_ policy: inout PoolPolicy, _ random: inout SeededRandom) {
        for _ in 0...random.below(3) {
            if random.chance(60) {
                policy[keyPath: spans[random.below(spans.count)]] = random.chance(50) ? .max : random.next() >> UInt64(random.below(20))
            } else {
                policy[keyPath: counts[random.below(counts.count)]] = [-1, 0, 1, .max, .min][random.below(5)]
            }
        }
    }

    static let spans: [any WritableKeyPath<PoolPolicy, Nanoseconds> & Sendable] = [
        \.aheadSpan, \.overloadTarget, \.overloadInterval, \.defaultBudget, \.maximumBudget, \.hangAfter, \.killRefill, \.startTimeout, \.drainGrace,
        \.terminateGrace, \.maximumAge, \.maximumCalls, \.maximumPrivateBytes, \.measureInterval, \.recycleJitterPercent, \.backOffBase,
        \.backOffMaximum, \.stableAfter, \.circuitOpenFor, \.quarantineFor, \.healthInterval, \.healthTimeout, \.sessionTimeToLive,
        \.maximumQueuedBytes, \.maximumQueuedBytesPerIdentity,
    ]
    static let counts: [any WritableKeyPath<PoolPolicy, Int> & Sendable] = [
        \.workers, \.minimumWorkers, \.maximumWorkers, \.surge, \.startingAtOnce, \.window, \.maximumQueuedCalls, \.maximumAttempts, \.killAllowance,
        \.unavailableAfter, \.circuitFailures, \.circuitSuccesses, \.quarantineDeaths, \.healthFailures, \.maximumSessions,
        \.maximumSessionsPerIdentity,
    ]
}
