import PoolCore

/// Why a run failed.
package struct Violation: Error {
    package var text: String
}

/// What a run did, for the totals: it is no use to simulate what never happens.
package struct RunTotals {
    package var events = 0
    package var effects = 0
    package var calls = 0
    package var results = 0
    package var refused = 0
    package var deaths = 0
    package var lost = 0
    package var retried = 0
    package var takenBack = 0
    package var timeouts = 0
    package var cancelled = 0
    package var recycled = 0
    package var quarantined = 0
    package var encodings = 0
    package var failedStarts = 0
    package init() {}

    package mutating func add(_ other: RunTotals) {
        events += other.events
        effects += other.effects
        calls += other.calls
        results += other.results
        refused += other.refused
        deaths += other.deaths
        lost += other.lost
        retried += other.retried
        takenBack += other.takenBack
        timeouts += other.timeouts
        cancelled += other.cancelled
        recycled += other.recycled
        quarantined += other.quarantined
        encodings += other.encodings
        failedStarts += other.failedStarts
    }
}

/// One machine in a world made from a seed: arrivals, workers, faults, operators, all in virtual time.
///
/// The world keeps its own account of every call and worker and refuses what poold must never do; see `+Checks`.
package struct Simulation: ~Copyable {
    package let seed: UInt64
    var random: SeededRandom
    /// Draws that must not change the run: where it is encoded and decoded.
    var aside: SeededRandom
    let encodes: Bool
    let keepsTrace: Bool
    let world: World
    var machine: PoolMachine
    var buffer = EffectBuffer(capacity: 64)
    var now: UInt64
    var agenda = Agenda()

    var workers: [SimulatedWorker]
    var calls: [SimulatedCall] = []
    /// The call that lives at each index of the machine's table.
    var serials: [Int] = []
    var liveCalls = 0
    var suspects: [UInt64: (deaths: Int, last: UInt64)] = [:]
    var isCalm = false
    var isShuttingDown = false
    var isEnding = false
    var stoppedCount = 0
    var isBrokenModule: Bool

    // What the event at hand is, for the checks.
    var arrivalAtHand: Arrival?
    var replyAtHand: (worker: WorkerID, number: UInt64)?
    var poisonAtHand: UInt64 = 0
    var exitedOutstanding: (worker: WorkerID, running: UInt64)?
    var beganAfterItsEnd: String?

    package private(set) var totals = RunTotals()
    package private(set) var trace: [String] = []
    private var hasher = Hasher()
    var counted = PoolCounters()

    package init(seed: UInt64, encodes: Bool, keepsTrace: Bool = false) {
        self.seed = seed
        self.encodes = encodes
        self.keepsTrace = keepsTrace
        var random = SeededRandom(seed: seed)
        let world = World(&random)
        now = 1_000_000_000 + random.next() % (1 << 40)
        isBrokenModule = random.chance(world.brokenModulePercent)
        self.random = random
        self.world = world
        aside = SeededRandom(seed: seed ^ 0xABCD)
        machine = PoolMachine(policy: world.policy, seed: seed)
        workers = Array(repeating: SimulatedWorker(), count: world.policy.clamped.maximumWorkers + world.policy.clamped.surge)
    }

    /// The whole run; the hash stands for every effect in its order.
    package mutating func run(steps: Int) throws(Violation) -> Int {
        try apply(.timer)
        agenda.add(.arrival, at: now + random.span(0, 10_000_000))
        agenda.add(.operation, at: now + random.span(0, 1_000_000_000))
        for _ in 0..<steps { try step() }
        try calmDown()
        try shutDown()
        try checkEnd()
        return hasher.finalize()
    }

    /// The next thing that is due, in the world or in the machine.
    mutating func step() throws(Violation) {
        let deadline = machine.nextDeadline?.nanoseconds ?? .max
        guard let next = agenda.nextTime else {
            guard deadline != .max else { return }
            now = max(now, deadline)
            try timer()
            return
        }
        if deadline <= next {
            // A loop that is late fires its timer late.
            now = max(now, deadline) + (random.chance(10) ? random.anySpan(maximumBits: 28) : 0)
            try timer()
            return
        }
        guard let (time, happening) = agenda.pop() else { return }
        now = max(now, time)
        if !isCalm && random.perMille(world.clockJumpPerMille) { now += random.anySpan(maximumBits: 44) }
        try happen(happening)
        if !isCalm && random.perMille(20) { try apply(.timer) }
    }

    private mutating func timer() throws(Violation) {
        try apply(.timer)
        if let deadline = machine.nextDeadline, deadline.nanoseconds <= now {
            throw fail("the timer was handled and is due again at once: the loop would spin")
        }
    }

    // MARK: - Events into the machine

    mutating func apply(_ event: Event) throws(Violation) {
        if encodes && aside.chance(4) {
            let bytes = machine.encoded()
            totals.encodings += 1
            if aside.chance(25) {
                var damaged = bytes
                damaged[aside.below(bytes.count)] ^= 1 << UInt8(aside.below(8))
                if (try? PoolMachine.decoded(damaged).nextDeadline) != nil { throw fail("damaged bytes were taken for a state") }
            }
            do { machine = try PoolMachine.decoded(bytes) } catch { throw fail("the state cannot be read back: \(error)") }
        }
        totals.events += 1
        if keepsTrace { note("event \(event)") }
        buffer.removeAll()
        // Now and then a loop with an old idea of the time.
        var told = now
        if case .timer = event {} else if !isCalm && random.perMille(5) { told -= min(told, 1_000_000) }
        machine.handle(event, now: Instant(nanoseconds: told), into: &buffer)
        try carryOut()
        if let arrival = arrivalAtHand { throw fail("the arrival of \(arrival) was neither admitted nor refused") }
    }

    private mutating func carryOut() throws(Violation) {
        var at = 0
        while at < buffer.effects.count {
            guard at < 100_000 else { throw fail("an event has more than 100,000 effects") }
            let effect = buffer.effects[at]
            totals.effects += 1
            hasher.combine(effect)
            if keepsTrace { note("  \(effect)") }
            try take(effect, isFirst: at == 0)
            at += 1
        }
        buffer.removeAll()
        replyAtHand = nil
        try checkLimits()
    }

    /// An outcome that the shell knows at once.
    mutating func feed(_ event: Event) {
        if keepsTrace { note("  feeds \(event)") }
        machine.handle(event, now: Instant(nanoseconds: now), into: &buffer)
    }

    mutating func note(_ line: String) {
        trace.append("\(now): \(line)")
        if trace.count > 4000 { trace.removeFirst(2000) }
    }

    func fail(_ text: String) -> Violation { Violation(text: text) }

    mutating func count(_ path: WritableKeyPath<RunTotals, Int>) { totals[keyPath: path] += 1 }

    // MARK: - The end of a run

    /// No more faults and arrivals: the pool must come to rest, with every call ended and the wanted workers ready.
    private mutating func calmDown() throws(Violation) {
        isCalm = true
        isBrokenModule = false
        try apply(.resume)
        for _ in 0..<60_000 {
            if hasConverged { return }
            guard !agenda.isEmpty || machine.nextDeadline != nil else { break }
            try step()
        }
        let status = machine.status(now: Instant(nanoseconds: now))
        throw fail(
            "does not come to rest: \(liveCalls) calls live, \(status.workers.filter { $0.phase == .ready }.count) ready of \(status.wanted), \(status.workers)"
        )
    }

    private var hasConverged: Bool {
        guard liveCalls == 0 else { return false }
        let status = machine.status(now: Instant(nanoseconds: now))
        if isShuttingDown { return stoppedCount == 1 }
        var ready = 0
        for worker in status.workers where worker.phase == .ready { ready += 1 }
        return ready == status.wanted && status.workers.count == ready && status.queuedCalls == 0
    }

    private mutating func shutDown() throws(Violation) {
        if !isShuttingDown {
            if random.chance(50) { try arrive() }
            isShuttingDown = true
            try apply(.shutdown(limit: random.anySpan(maximumBits: 34)))
        }
        for _ in 0..<60_000 {
            if stoppedCount > 0 { return }
            if machine.nextDeadline == nil && agenda.isEmpty { break }
            try step()
        }
        throw fail("a shutdown never ends: \(machine.status(now: Instant(nanoseconds: now)).workers)")
    }
}
