import PoolCore
import PoolWire

/// What callers are told when poold itself ends a call: what happened and what to do.
enum ErrorText {
    static func of(_ outcome: Outcome, pool: String, unavailable: @autoclosure () -> String) -> (Status, String) {
        switch outcome {
        case .timeoutWaiting:
            return (
                .timeoutWaiting,
                "the budget ended, or what was left of it was too short for this method, before a worker of pool \(pool) began the call; it has had no effect"
            )
        case .timeoutRunning: return (.timeoutRunning, timeoutRunning(pool: pool, stack: "", ""))
        case .cancelledWaiting: return (.cancelled, "cancelled before it began")
        case .cancelledRunning: return (.cancelled, "cancelled while it ran; it may have had effects")
        case .workerLost:
            return (.workerLost, "the worker of pool \(pool) ended while the call ran; it may have had effects. Mark calls IDEMPOTENT to have them run again")
        case .draining: return (.draining, "pool \(pool) is shutting down; the call was not begun")
        case .shed: return (.overloaded, "pool \(pool) is overloaded and dropped the call unbegun; try again later")
        case .unavailable: return (.poolUnavailable, unavailable())
        case .sessionLost:
            return (.sessionLost, "the worker of this session in pool \(pool) has ended before the call began; the session's next call starts anew")
        }
    }

    /// With the stack where it ran, or why there is none. `problem` empty: it was not asked for.
    static func timeoutRunning(pool: String, stack: String, _ problem: String) -> String {
        let first = "the budget ended while the call ran in pool \(pool); it may have had effects"
        if !stack.isEmpty { return "\(first)\n\(stack)" }
        return problem.isEmpty ? first : "\(first) (no stack: \(problem))"
    }

    static func cancelledByOperator(began: Bool) -> String {
        began ? "cancelled by an operator while it ran; it may have had effects" : "cancelled by an operator before it began"
    }

    static func of(_ refusal: Refusal, pool: String, unavailable: @autoclosure () -> String) -> (Status, String) {
        let wait = "the predicted wait is \(milliseconds(refusal.predictedWait)) ms"
        switch refusal.reason {
        case .queueFull: return (.overloaded, "the queue of pool \(pool) is full; \(wait); try again later or scale the pool")
        case .bytesFull: return (.overloaded, "bodies that wait in pool \(pool) have reached their limit in bytes; \(wait); try again later")
        case .wouldExpire:
            let run = refusal.expectedRun > 0 ? ", and such calls take up to \(milliseconds(refusal.expectedRun)) ms" : ""
            return (.overloaded, "pool \(pool) cannot end the call within its budget: \(wait)\(run)")
        case .draining: return (.draining, "pool \(pool) takes no new calls: it is draining")
        case .unavailable: return (.poolUnavailable, unavailable())
        case .quarantined: return (.quarantined, "this method with this body has killed workers of pool \(pool) before and is refused; see poolctl quarantine")
        case .sessionLost: return (.sessionLost, "the worker of this session in pool \(pool) has ended; the session's next call starts anew")
        case .sessionQuota: return (.quotaExceeded, "pool \(pool) has no room for another session; end some or wait until they expire")
        }
    }

    /// `failure`: of the last start, empty if it went well.
    static func unavailable(_ pool: String, wanted: Int, circuit: CircuitState, failure: String) -> String {
        if wanted == 0 { return "pool \(pool) is scaled to no worker; `poolctl scale \(pool) 1` starts one" }
        if !failure.isEmpty { return "pool \(pool) cannot start a worker: \(failure)" }
        return circuit == .closed
            ? "pool \(pool) has no worker that can serve; see `poolctl status \(pool)`"
            : "the circuit breaker of pool \(pool) is open: its workers died one upon the other; see `poolctl post-mortem \(pool)`"
    }

    private static func milliseconds(_ span: Nanoseconds) -> String {
        let tenths = span / 100_000
        return "\(tenths / 10).\(tenths % 10)"
    }
}
