import CPoold
import Histogram
import PoolWire
import Synchronization

/// What a run has counted; the threads of the run share it through `ChaosBoard`.
struct ChaosTally {
    var faults: [FaultKind: Int] = [:]
    var skipped: [FaultKind: Int] = [:]
    /// The first is what is reported; the rest is in the log.
    var violations: [String] = []
    /// When the last fault, or what follows it, was at work.
    var lastFault: UInt64 = 0
    /// How far the operator's thread is; the load's thread sees that it does not hang.
    var heartbeat: UInt64 = 0
    var pings: [UInt64] = []
    var samples: [ChaosSample] = []
    /// What the load's thread is asked to do to its own connections and to workers.
    var requests: [PlannedFault] = []
    var isOver = false
}

/// Of poold and its processes, every few seconds.
struct ChaosSample {
    var seconds = 0.0
    var residentKiB = 0
    var descriptors = 0
    var connections = 0
    var processes = 0
    var zombies = 0
    var threads = 0
    var privateMiB = 0
    var pingMicroseconds: UInt64 = 0
}

final class ChaosBoard: Sendable {
    static let maximumViolations = 200
    private let state = Mutex(ChaosTally())

    func with<Value: Sendable>(_ body: (inout ChaosTally) -> Value) -> Value { state.withLock { body(&$0) } }

    func violation(_ text: String) {
        with { tally in
            if tally.violations.count < Self.maximumViolations { tally.violations.append(text) }
        }
    }

    func began(_ kind: FaultKind, effect seconds: Double) {
        with { tally in
            tally.faults[kind, default: 0] += 1
            tally.lastFault = max(tally.lastFault, cpoold_now() + UInt64(seconds * 1e9))
        }
    }

    func skipped(_ kind: FaultKind) { with { $0.skipped[kind, default: 0] += 1 } }
}

/// How the calls ended.
struct CallTally {
    var issued: UInt64 = 0
    var results: UInt64 = 0
    /// By status and by what explains them.
    var ends: [String: [UInt64]] = [:]
    var errors: [String: UInt64] { ends.mapValues { $0.reduce(0, +) } }
    /// Open on a connection that chaos closed.
    var closed: UInt64 = 0
    var late: UInt64 = 0
    var latency = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    /// Of calls that began and ended in seconds without a fault.
    var calmLatency = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    var pools: [PoolTally] = Array(repeating: PoolTally(), count: ChaosPool.allCases.count)

    struct PoolTally {
        var issued: UInt64 = 0
        var results: UInt64 = 0
        var refused: UInt64 = 0
        var otherErrors: UInt64 = 0
        var closed: UInt64 = 0
        /// While no fault was at work in the pool; `Short`: with a budget below a second.
        var madeInPeace: UInt64 = 0
        var madeShortInPeace: UInt64 = 0
        /// What nothing explains.
        var overloadedInPeace: UInt64 = 0
        var timeoutsInPeace: UInt64 = 0
        var shortInPeace: UInt64 = 0
    }

    mutating func count(_ status: String, _ explanation: Explanation) {
        ends[status, default: Array(repeating: 0, count: Explanation.allCases.count)][explanation.rawValue] += 1
    }
}
