import PoolCore

/// What can be counted of a run: it is no use to simulate what never happens.
package enum Tally: Int, CaseIterable, Sendable {
    // Events.
    case arrivals, cancels, abandons, spawned, spawnFailures, readies, setupFailures, replies, pongs, brokenProtocols, closedSockets
    case exits, revocations, measurements, blames, timers
    case scales, recycles, recycleAlls, kills, drains, resumes, shutdowns, shutdownsNow, quarantinesCleared, configurations
    case staleEvents, encodings, damagedStates

    // Faults.
    case crashesIdle, crashesRunning, crashesStarting, repliesLostUnwritten, repliesReadAfterDeath, importsBroken, stalledCalls, stalledWorkers
    case slowStarts, clockLeaps, clockBehind, scribbledPages, wrongNumbers, poisonedCalls, termIgnored, interruptSwallowed, lateChecks

    // Replies.
    case result, error, interrupted, unrunRevoked, unrunExpired

    // Ends of calls.
    case delivered, released, timeoutWaiting, timeoutRunning, cancelledWaiting, cancelledRunning, workerLost, endedDraining, shed
    case endedUnavailable, endedSessionLost, retried, takenBack

    // Refusals.
    case queueFull, bytesFull, wouldExpire, draining, unavailable, quarantined, sessionLost, sessionQuota

    // What poold did with its workers.
    case sends, spawns, pings, workerDrains, terminates, workerKills, measures
    case scaledDown, aged, callsOver, memoryOver, operatorRecycled, hung, unhealthy, startTimeouts, gracesOver, killsWithheld
    case circuitOpened, circuitHalfOpened, circuitClosed, backOffs, probesServed

    /// Title, first and last of each group.
    package static let groups: [(title: String, first: Tally, last: Tally)] = [
        ("events", .arrivals, .damagedStates), ("faults", .crashesIdle, .lateChecks), ("replies", .result, .unrunExpired),
        ("ends of calls", .delivered, .takenBack), ("refusals", .queueFull, .sessionQuota), ("workers", .sends, .probesServed),
    ]
}

/// Counts of one run or of many.
package struct Totals: Sendable {
    package private(set) var counts = [Int](repeating: 0, count: Tally.allCases.count)
    package var events = 0
    package var effects = 0
    package init() {}

    package subscript(tally: Tally) -> Int {
        get { counts[tally.rawValue] }
        set { counts[tally.rawValue] = newValue }
    }

    package mutating func add(_ other: Totals) {
        for at in counts.indices { counts[at] += other.counts[at] }
        events += other.events
        effects += other.effects
    }
}

extension Tally {
    init(_ kind: ReplyKind) {
        switch kind {
        case .result: self = .result
        case .error: self = .error
        case .interrupted: self = .interrupted
        case .unrunRevoked: self = .unrunRevoked
        case .unrunExpired: self = .unrunExpired
        }
    }

    init(_ outcome: Outcome) {
        switch outcome {
        case .timeoutWaiting: self = .timeoutWaiting
        case .timeoutRunning: self = .timeoutRunning
        case .cancelledWaiting: self = .cancelledWaiting
        case .cancelledRunning: self = .cancelledRunning
        case .workerLost: self = .workerLost
        case .draining: self = .endedDraining
        case .shed: self = .shed
        case .unavailable: self = .endedUnavailable
        case .sessionLost: self = .endedSessionLost
        }
    }

    init(_ reason: Refusal.Reason) {
        switch reason {
        case .queueFull: self = .queueFull
        case .bytesFull: self = .bytesFull
        case .wouldExpire: self = .wouldExpire
        case .draining: self = .draining
        case .unavailable: self = .unavailable
        case .quarantined: self = .quarantined
        case .sessionLost: self = .sessionLost
        case .sessionQuota: self = .sessionQuota
        }
    }

    /// Of a worker that poold lets go; `nil`: not its doing.
    init?(_ cause: WorkerCause) {
        switch cause {
        case .scaledDown: self = .scaledDown
        case .age: self = .aged
        case .calls: self = .callsOver
        case .memory: self = .memoryOver
        case .operatorRecycle: self = .operatorRecycled
        case .hung: self = .hung
        case .unhealthy: self = .unhealthy
        case .startTimeout: self = .startTimeouts
        case .graceOver: self = .gracesOver
        case .wanted, .spawnFailed, .setupFailed, .becameReady, .operatorKill, .protocolFault, .socketClosed, .exited, .crashed, .shutdown, .replaced:
            return nil
        }
    }
}
