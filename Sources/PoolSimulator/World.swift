import PoolCore

/// What kind of world a seed makes: policy, load and how much goes wrong.
struct World {
    var policy: PoolPolicy
    var identities: Int
    var methods: Int
    var arrivalGap: UInt64
    var burst: Int
    var serviceBits: Int
    var slowPercent: Int
    var crashPerMille: Int
    var poisonPerMille: Int
    var stallPerMille: Int
    var misbehavePerMille: Int
    var cancelPercent: Int
    var stubbornPercent: Int
    var spawnFailPercent: Int
    var setupFailPercent: Int
    var brokenModulePercent: Int
    var clockJumpPerMille: Int
    var operationGap: UInt64
    var ignoreTermPercent: Int

    init(_ random: inout SeededRandom) {
        var policy = PoolPolicy()
        policy.maximumWorkers = 1 + random.below(8)
        policy.workers = random.below(policy.maximumWorkers + 1)
        policy.minimumWorkers = random.chance(30) ? random.below(policy.workers + 1) : 0
        policy.surge = 1 + random.below(2)
        policy.startingAtOnce = 1 + random.below(4)
        policy.window = [1, 2, 4, 8, 16, 64][random.below(6)]
        policy.aheadSpan = random.chance(80) ? 1_000_000 : random.anySpan(maximumBits: 30)
        policy.maximumQueuedCalls = random.chance(30) ? random.below(8) : 64 + random.below(200)
        policy.maximumQueuedBytes = random.chance(20) ? 2_000 : 1 << 20
        policy.maximumQueuedBytesPerIdentity = random.chance(20) ? 1_000 : 1 << 20
        policy.overload = OverloadPolicy.allCases[random.below(3)]
        policy.overloadTarget = random.anySpan(maximumBits: 26)
        policy.overloadInterval = 1 + random.anySpan(maximumBits: 30)
        policy.defaultBudget = 1_000_000 + random.anySpan(maximumBits: 36)
        policy.maximumAttempts = 1 + random.below(4)
        policy.overrun = OverrunPolicy.allCases[random.below(3)]
        policy.hangAfter = 1_000_000 + random.anySpan(maximumBits: 33)
        policy.killAllowance = 1 + random.below(4)
        policy.killRefill = random.anySpan(maximumBits: 34)
        policy.startTimeout = 1_000_000_000 + random.anySpan(maximumBits: 34)
        policy.drainGrace = 1_000_000 + random.anySpan(maximumBits: 33)
        policy.terminateGrace = random.anySpan(maximumBits: 33)
        if random.chance(25) { policy.maximumAge = 1_000_000_000 + random.anySpan(maximumBits: 36) }
        if random.chance(25) { policy.maximumCalls = 1 + random.anySpan(maximumBits: 8) }
        if random.chance(15) { policy.maximumPrivateBytes = 1 << 20 }
        policy.measureInterval = 200_000_000 + random.anySpan(maximumBits: 34)
        policy.unavailableAfter = 1 + random.below(4)
        policy.circuitFailures = random.chance(50) ? 0 : 1 + random.below(6)
        policy.circuitSuccesses = 1 + random.below(3)
        policy.quarantineDeaths = random.below(4)
        policy.healthInterval = random.chance(50) ? 0 : 200_000_000 + random.anySpan(maximumBits: 34)
        policy.healthFailures = 1 + random.below(3)
        policy.healthTimeout = 1_000_000 + random.anySpan(maximumBits: 32)
        policy.affinity = Affinity.allCases[random.below(3)]
        policy.sessionTimeToLive = random.chance(50) ? 0 : random.anySpan(maximumBits: 36)
        policy.maximumSessions = random.chance(50) ? random.below(6) : 1000
        policy.maximumSessionsPerIdentity = random.chance(50) ? random.below(4) : 1000
        self.policy = policy

        identities = 1 + random.below(4)
        methods = 1 + random.below(4)
        arrivalGap = 20_000 + random.anySpan(maximumBits: 28)
        burst = random.chance(30) ? 1 + random.below(12) : 1
        serviceBits = 10 + random.below(22)
        slowPercent = random.chance(30) ? random.below(20) : 0
        // A third of the worlds is nearly well: faults must not hide what goes wrong without them.
        let harm = random.below(3)
        crashPerMille = harm * random.below(30)
        poisonPerMille = harm * random.below(15)
        stallPerMille = harm * random.below(8)
        misbehavePerMille = harm * random.below(8)
        cancelPercent = random.below(20)
        stubbornPercent = random.below(40)
        spawnFailPercent = harm * random.below(15)
        setupFailPercent = harm * random.below(15)
        brokenModulePercent = harm == 2 ? 10 : 0
        clockJumpPerMille = harm * random.below(4)
        operationGap = 1_000_000 + random.anySpan(maximumBits: 30)
        ignoreTermPercent = random.below(40)
    }
}
