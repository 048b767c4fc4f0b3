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

/// Which faults were at work when: an error that none explains is a violation.
final class Disturbances: Sendable {
    private struct Entry {
        var pool: ChaosPool?
        var kind: Disturbance
        var from: UInt64
        var until: UInt64
    }
    /// How long a fault is felt after it is over: queues have to be worked off, and budgets are up to 10 s.
    static let aftermath: UInt64 = 20_000_000_000
    /// A budget below this may run out on a busy machine without any fault.
    static let shortBudget: UInt64 = 1_000_000_000
    private let entries = Mutex<[Entry]>([])

    /// - Parameter pool: nil: all of them.
    func add(_ kind: Disturbance, pool: ChaosPool?, seconds: Double = 0) {
        let now = cpoold_now()
        entries.withLock { entries in
            if entries.count > 512 { entries.removeAll { $0.until + 60_000_000_000 < now } }
            entries.append(Entry(pool: pool, kind: kind, from: now, until: now + UInt64(seconds * 1e9) + Self.aftermath))
        }
    }

    private func wasAtWork(_ kinds: [Disturbance], _ call: JudgedCall) -> Bool {
        entries.withLock { entries in
            entries.contains { $0.from <= call.ended && $0.until >= call.issued && ($0.pool == nil || $0.pool == call.pool) && kinds.contains($0.kind) }
        }
    }

    /// Whether a call may truthfully have ended so.
    func explains(_ status: Status, _ call: JudgedCall) -> Bool {
        let isPoison = call.work == UInt8(ascii: "P")
        let endsWorker = isPoison || call.work == UInt8(ascii: "S") || call.work == UInt8(ascii: "X")
        switch status {
        case .applicationError: return call.work == UInt8(ascii: "r") || call.work == UInt8(ascii: "x")
        case .cancelled: return call.wasCancelled
        case .timeoutWaiting, .timeoutRunning, .overloaded:
            return call.budget < Self.shortBudget || call.pool == .wild || wasAtWork([.kills, .slows, .reloads, .drains], call)
        case .workerLost: return endsWorker || wasAtWork([.kills], call)
        case .poolUnavailable: return wasAtWork([.kills, .reloads], call)
        case .draining: return wasAtWork([.drains, .reloads], call)
        case .sessionLost: return call.session != 0 && wasAtWork([.kills, .slows, .reloads], call)
        case .noSuchPool, .noSuchMethod, .methodGone: return call.pool == .extra || call.pool == .names
        case .quarantined: return isPoison
        case .badArguments, .badFrame, .frameTooLarge, .unsupportedVersion, .permissionDenied, .quotaExceeded, .resultTooLarge, .resultUnencodable,
            .setupFailed, .internal:
            return false
        }
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
