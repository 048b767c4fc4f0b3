import PoolCore

/// Why a run failed.
package struct Violation: Error {
    package var text: String
}

/// One machine in a world made from a seed: arrivals, workers, faults, operators, all in virtual time.
///
/// The world (`+Happenings`, `+Workers`, `+Operator`) makes events. The shadow model (`+Effects`, `+Calls`, `+Phases`, `+Limits`)
/// keeps its own account of every call and worker and refuses what poold must never do. `+Ends` brings a run to its end.
package struct Simulation: ~Copyable {
    /// Later than that nothing is waited for: what is due then never comes.
    static let endOfTime: UInt64 = 1 << 62

    package let seed: UInt64
    var random: SeededRandom
    /// Draws that must not change the run: where it is encoded and decoded.
    private var aside: SeededRandom
    private let encodes: Bool
    let world: World
    /// The policy in force, as the machine bounds it.
    var policy: PoolPolicy
    /// A value of the policy is, or once was, beyond what a configuration may hold.
    var hasAbsurdPolicy: Bool
    var machine: PoolMachine
    private(set) var buffer = EffectBuffer(capacity: 64)
    /// The world's time.
    var now: UInt64
    /// The latest time that the machine was told.
    var told: UInt64 = 0
    var agenda = Agenda()

    // The world.
    var workers: [SimulatedWorker]
    var isCalm = false
    var isBrokenModule: Bool
    /// Which effect of the event at hand is being carried out.
    var effectAt = 0

    // The shadow model's account.
    var calls: [SimulatedCall] = []
    /// The call that lives at each index of the machine's table, or -1.
    var serials: [Int] = []
    var living: [Int] = []
    var waitingCalls = 0
    var waitingBytes: UInt64 = 0
    var waitingBytesByIdentity: [UInt64]
    var sessions: [SessionKey: Session] = [:]
    /// Sessions that may exist although the limit was lowered below them.
    var sessionsLeftOver = 0
    /// Calls from this one on came under the affinity and overload policy in force: they are served in their order.
    var orderedFrom = 0
    var suspects: [UInt64: (deaths: Int, last: UInt64)] = [:]
    var counters = PoolCounters()
    var tally: MetricsTally
    /// Of each method, as told by workers.
    var longestRun: [UInt64]
    var wanted: Int
    var health = PoolHealth.starting
    var circuit = CircuitState.closed
    /// The call that was sent last while the circuit was half open.
    var probe: Int?
    var failedStarts = 0
    var backOffUntil: UInt64 = 0
    var hangKills = 0
    var firstHangKill: UInt64 = 0
    var isDraining = false
    var isShuttingDown = false
    var shutdownAt: UInt64 = .max
    /// After `shutdownNow`.
    var isKillingAll = false
    /// The machine knows that the shutdown's limit is over.
    var isEnding = false
    var isStopped = false

    // What the event at hand is, for the checks.
    var arrivalAtHand: Arrival?
    var poisonAtHand: UInt64 = 0
    var admittedAtHand: Int?
    var mustServe = false
    var replyAtHand: (worker: WorkerID, number: UInt64, kind: ReplyKind)?
    var exitAtHand: (worker: WorkerID, running: UInt64)?
    var blamesAtHand = 0
    var waitedBefore = (calls: 0, bytes: UInt64(0), ofIdentity: UInt64(0))
    /// Found by a part of the world that cannot throw.
    var fault: String?

    package internal(set) var totals = Totals()
    private(set) var digest = Digest()
    private let reporter: ((String) -> Void)?

    struct SessionKey: Hashable {
        var identity: UInt16
        var session: UInt64
    }

    struct Session {
        var worker: WorkerID
        var lastUsed: UInt64
        /// Bound under the policy in force.
        var isFirm: Bool
    }

    /// `reporter` hears of every event and effect as they happen; `without` names faults that are switched off.
    package init(seed: UInt64, encodes: Bool, without: [String] = [], reporter: ((String) -> Void)? = nil) {
        self.seed = seed
        self.encodes = encodes
        self.reporter = reporter
        var random = SeededRandom(seed: seed)
        var world = World(&random)
        for fault in World.Faults.all where without.contains(fault.name) { world.faults[keyPath: fault.path] = 0 }
        now = 1_000_000_000 + random.next() % (1 << 40)
        isBrokenModule = random.chance(world.faults.brokenModulePercent)
        self.random = random
        self.world = world
        policy = world.policy.clamped
        hasAbsurdPolicy = world.hasAbsurdPolicy
        aside = SeededRandom(seed: seed ^ 0xABCD)
        machine = PoolMachine(policy: world.policy, seed: seed)
        workers = Array(repeating: SimulatedWorker(), count: policy.maximumWorkers + policy.surge)
        wanted = min(max(policy.workers, policy.minimumWorkers), policy.maximumWorkers)
        tally = MetricsTally(methods: world.methods)
        longestRun = Array(repeating: 0, count: world.methods)
        waitingBytesByIdentity = Array(repeating: 0, count: world.identities)
    }

    /// Names of the faults that can be switched off.
    package static var faultNames: [String] { World.Faults.all.map(\.name) }

    /// The whole run; the digest stands for every effect in its order.
    package mutating func run(steps: Int) throws(Violation) -> UInt64 {
        try apply(.timer)
        agenda.add(.arrival, at: now + random.span(0, 1 << UInt64(world.serviceBits)))
        agenda.add(.operation, at: now + random.span(0, world.operationGap))
        for _ in 0..<steps { try step() }
        try calmDown()
        try serveOnceMore()
        try shutDown()
        try checkEnd()
        return digest.value
    }

    /// The next thing that is due, in the world or in the machine.
    mutating func step() throws(Violation) {
        let deadline = machine.nextDeadline?.nanoseconds ?? .max
        let next = agenda.nextTime ?? .max
        guard min(deadline, next) < Self.endOfTime else { return }
        if deadline <= next {
            now = max(now, deadline)
            // A loop that is late fires its timer late.
            if !isCalm && random.chance(world.faults.lateTimerPercent) { now += random.anySpan(maximumBits: world.serviceBits) }
            return try fireTimer()
        }
        guard let (time, happening) = agenda.pop() else { return }
        now = max(now, time)
        if !isCalm && random.perMille(world.faults.clockLeapPerMille) {
            totals[.clockLeaps] += 1
            now += random.anySpan(maximumBits: 44)
        }
        try happen(happening)
        if !isCalm && random.perMille(20) { try apply(.timer) }
    }

    var hasSomethingDue: Bool {
        let deadline = machine.nextDeadline?.nanoseconds ?? .max
        return min(deadline, agenda.nextTime ?? .max) < Self.endOfTime
    }

    mutating func fireTimer() throws(Violation) {
        // What comes of a timer may set another that is due at once, but not for ever.
        for _ in 0..<4 {
            try apply(.timer)
            guard let deadline = machine.nextDeadline, deadline.nanoseconds <= told else { return }
        }
        throw fail("the timer was handled and is due again at once: the loop would spin")
    }

    // MARK: - Events into the machine

    mutating func apply(_ event: Event) throws(Violation) {
        count(event)
        var isTimer = false
        if case .timer = event { isTimer = true }
        let time = try begin(isTimer: isTimer)
        if reporter != nil { note("\(event)") }
        noteBlame(event)
        machine.handle(event, now: Instant(nanoseconds: time), into: &buffer)
        try carryOut()
        try check(after: event)
    }

    /// Another policy, as an operator's `reload` gives it.
    mutating func apply(_ proposed: PoolPolicy) throws(Violation) {
        totals[.configurations] += 1
        let time = try begin(isTimer: false)
        let expected = noteConfiguration(proposed)
        if reporter != nil { note("configure(\(policy))") }
        machine.configure(proposed, now: Instant(nanoseconds: time), into: &buffer)
        try carryOut()
        guard wanted == expected else { throw fail("\(wanted) workers are wanted under the new policy instead of \(expected)") }
        try checkAlways()
    }

    /// The time that the machine is told; it may be encoded and decoded before.
    private mutating func begin(isTimer: Bool) throws(Violation) -> UInt64 {
        if encodes && aside.chance(4) { try saveAndRestore() }
        totals.events += 1
        var time = now
        // Now and then a loop with an old idea of the time.
        if !isTimer && strikes(perMille: world.faults.clockBehindPerMille) {
            totals[.clockBehind] += 1
            time -= min(time, random.anySpan(maximumBits: 40))
        }
        tallyTime(until: max(told, time))
        told = max(told, time)
        buffer.removeAll()
        return time
    }

    private mutating func carryOut() throws(Violation) {
        var at = 0
        while at < buffer.effects.count {
            effectAt = at
            guard at < 20_000 else { throw fail("an event has more than 20,000 effects") }
            let effect = buffer.effects[at]
            totals.effects += 1
            digest.add(effect)
            if reporter != nil { note("    \(effect)") }
            try take(effect, isFirst: at == 0)
            at += 1
        }
        buffer.removeAll()
        if let fault { throw fail(fault) }
    }

    /// An outcome that the shell knows at once.
    mutating func feed(_ event: Event) {
        count(event)
        if reporter != nil { note("  \(event)") }
        noteBlame(event)
        machine.handle(event, now: Instant(nanoseconds: told), into: &buffer)
    }

    /// Encoded, dropped, decoded: the run must go on as if nothing had happened. Damaged bytes must be errors.
    private mutating func saveAndRestore() throws(Violation) {
        totals[.encodings] += 1
        let bytes = machine.encoded()
        if aside.chance(10) {
            totals[.damagedStates] += 1
            var saboteur = Saboteur(random: aside)
            if let text = saboteur.attack(bytes) { throw fail(text) }
            aside = saboteur.random
        }
        do { machine = try PoolMachine.decoded(bytes) } catch { throw fail("the state cannot be read back: \(error)") }
        if aside.chance(20) && machine.encoded() != bytes { throw fail("a state that was read back is encoded differently") }
    }

    private func note(_ line: String) { reporter?("\(now) " + Self.readable(line)) }

    func fail(_ text: String) -> Violation { Violation(text: text) }

    private mutating func count(_ event: Event) {
        switch event {
        case .callArrived: totals[.arrivals] += 1
        case .callCancelled: totals[.cancels] += 1
        case .callAbandoned: totals[.abandons] += 1
        case .workerSpawned: totals[.spawned] += 1
        case .workerSpawnFailed: totals[.spawnFailures] += 1
        case .workerReady: totals[.readies] += 1
        case .workerSetupFailed: totals[.setupFailures] += 1
        case .workerReplied(_, _, let kind, _):
            totals[.replies] += 1
            totals[Tally(kind)] += 1
        case .workerPonged: totals[.pongs] += 1
        case .workerBroken: totals[.brokenProtocols] += 1
        case .workerClosed: totals[.closedSockets] += 1
        case .workerExited: totals[.exits] += 1
        case .workerRevoked: totals[.revocations] += 1
        case .workerMeasured: totals[.measurements] += 1
        case .callBlamed: totals[.blames] += 1
        case .timer: totals[.timers] += 1
        case .scale: totals[.scales] += 1
        case .recycle: totals[.recycles] += 1
        case .recycleAll: totals[.recycleAlls] += 1
        case .kill: totals[.kills] += 1
        case .drain: totals[.drains] += 1
        case .resume: totals[.resumes] += 1
        case .shutdown: totals[.shutdowns] += 1
        case .shutdownNow: totals[.shutdownsNow] += 1
        case .clearQuarantine: totals[.quarantinesCleared] += 1
        }
    }
}
