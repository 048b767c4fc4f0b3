import CPoold
import PoolWire
import Synchronization

/// What a fault may do to the calls of a pool, for a while.
enum Disturbance {
    /// Workers end unasked.
    case kills
    /// Workers are replaced, stopped or fewer: calls wait, sessions move.
    case slows
    case drains
    /// Methods and pools come and go.
    case reloads
}

/// A call as far as its end is judged.
struct JudgedCall {
    var pool: ChaosPool
    var work: UInt8
    var session: UInt64
    var budget: UInt64
    var issued: UInt64
    var ended: UInt64
    var wasCancelled: Bool
}

/// Why a call may have ended without a result.
enum Explanation: Int, CaseIterable {
    /// Its work or its CANCEL.
    case asked
    /// A fault was at work in its pool while it was open.
    case fault
    /// The machine had no processor to spare; that is what `overloaded` and budgets are for.
    case busyMachine
    /// Too short a budget to be sure of on two processors.
    case shortBudget
    /// Counted for `overloaded` and timeouts, and their share is bounded (`PeaceBounds`); a violation of every other status.
    case nothing
}

/// Which faults are at work in which pool. A fault is at work for its own length, and then until poold says that the pool is whole again.
final class Disturbances: Sendable {
    private struct Entry {
        var pool: ChaosPool
        var kind: Disturbance
        var from: UInt64
        /// Not over before.
        var earliest: UInt64
        /// nil: not over.
        var until: UInt64?
    }
    /// So long after a signal poold may not have noticed yet, and call the pool whole.
    static let notice: UInt64 = 1_000_000_000
    static let shortBudget: UInt64 = 1_000_000_000
    /// An ended fault is forgotten when no call that was open at its time can still be.
    private static let longestCall: UInt64 = 60_000_000_000
    private let entries = Mutex<[Entry]>([])

    /// - Parameter pool: nil: all of them.
    func add(_ kind: Disturbance, pool: ChaosPool?, seconds: Double = 0, now: UInt64 = cpoold_now()) {
        entries.withLock { entries in
            if entries.count > 256 { entries.removeAll { $0.until.map { $0 + Self.longestCall < now } ?? false } }
            for pool in pool.map({ [$0] }) ?? ChaosPool.allCases {
                entries.append(Entry(pool: pool, kind: kind, from: now, earliest: now + UInt64(seconds * 1e9) + Self.notice, until: nil))
            }
        }
    }

    var isAnyAtWork: Bool { entries.withLock { $0.contains { $0.until == nil } } }

    func isAtPeace(_ pool: ChaosPool) -> Bool { entries.withLock { !$0.contains { $0.until == nil && $0.pool == pool } } }

    /// poold was asked at this time, and these pools had all their workers and an empty queue.
    func observe(whole pools: Set<ChaosPool>, askedAt time: UInt64) {
        entries.withLock { entries in
            for at in entries.indices where entries[at].until == nil && entries[at].earliest <= time && pools.contains(entries[at].pool) {
                entries[at].until = time
            }
        }
    }

    private func wasAtWork(_ kinds: [Disturbance], _ call: JudgedCall) -> Bool {
        entries.withLock { entries in
            entries.contains { $0.pool == call.pool && $0.from <= call.ended && call.issued <= $0.until ?? .max && kinds.contains($0.kind) }
        }
    }

    /// Whether a call may truthfully have ended so, and by what.
    /// - Parameter isBusy: whether the machine was, while the call was open.
    func explains(_ status: Status, _ call: JudgedCall, isBusy: () -> Bool) -> Explanation {
        let isPoison = call.work == UInt8(ascii: "P")
        let endsWorker = isPoison || call.work == UInt8(ascii: "S") || call.work == UInt8(ascii: "X")
        func asked(_ condition: Bool) -> Explanation { condition ? .asked : .nothing }
        func fault(_ kinds: [Disturbance]) -> Explanation { wasAtWork(kinds, call) ? .fault : .nothing }
        switch status {
        case .applicationError: return asked(call.work == UInt8(ascii: "r") || call.work == UInt8(ascii: "x"))
        case .cancelled: return asked(call.wasCancelled)
        case .timeoutRunning where call.work == UInt8(ascii: "Z"): return .asked
        case .timeoutWaiting, .timeoutRunning, .overloaded:
            if wasAtWork([.kills, .slows, .reloads, .drains], call) { return .fault }
            if isBusy() { return .busyMachine }
            return call.budget < Self.shortBudget ? .shortBudget : .nothing
        case .workerLost: return endsWorker ? .asked : fault([.kills])
        case .poolUnavailable: return fault([.kills, .reloads])
        case .draining: return fault([.drains, .reloads])
        case .sessionLost: return call.session != 0 ? fault([.kills, .slows, .reloads]) : .nothing
        case .noSuchPool, .noSuchMethod, .methodGone: return call.pool == .extra || call.pool == .names ? .fault : .nothing
        case .quarantined: return asked(isPoison)
        case .badArguments, .badFrame, .frameTooLarge, .unsupportedVersion, .permissionDenied, .quotaExceeded, .resultTooLarge, .resultUnencodable,
            .setupFailed, .internal:
            return .nothing
        }
    }
}

/// How many calls may be refused or run out of time in a pool that no fault is at work in, on a machine that is not busy.
enum PeaceBounds {
    /// So few say nothing.
    static let least: UInt64 = 10

    static func problems(_ pools: [CallTally.PoolTally]) -> [String] {
        var problems: [String] = []
        for (pool, tally) in zip(ChaosPool.allCases, pools) {
            func check(_ what: String, _ count: UInt64, of calls: UInt64, oneIn share: UInt64) {
                guard count > max(least, calls / share) else { return }
                problems.append("pool \(pool): \(count) of \(calls) calls \(what) with no fault at work, on a machine that was not busy; 1 in \(share) may")
            }
            check("were refused as overloaded", tally.overloadedInPeace, of: tally.madeInPeace, oneIn: 1_000)
            check("ran out of time", tally.timeoutsInPeace, of: tally.madeInPeace, oneIn: 10_000)
            check("with a budget below 1 s were refused or ran out of time", tally.shortInPeace, of: tally.madeShortInPeace, oneIn: 10)
        }
        return problems
    }
}

extension Status {
    /// PROTOCOL.md promises that the call has had no effect; `cancelled` says it in its text.
    func saysNotBegun(_ text: String) -> Bool {
        switch self {
        case .timeoutWaiting, .overloaded, .draining, .noSuchPool, .noSuchMethod, .methodGone, .badArguments, .permissionDenied, .quotaExceeded, .quarantined,
            .poolUnavailable, .sessionLost:
            return true
        case .cancelled: return text.hasPrefix("cancelled before it began")
        case .applicationError, .timeoutRunning, .workerLost, .badFrame, .frameTooLarge, .unsupportedVersion, .resultTooLarge, .resultUnencodable,
            .setupFailed, .internal:
            return false
        }
    }
}
