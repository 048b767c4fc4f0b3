/// poold's own caller: its end of a socket pair, and the probe that is under way. Its other end is a caller's connection like any other.
struct CanaryClient {
    /// Index of the reserved pool; -1: there is none.
    var pool = -1
    /// Our end; -1: closed.
    var socket: Int32 = -1

    /// Between probes that are answered, ns.
    var interval: UInt64 = 0
    /// Of a probe, ns.
    var budget: UInt64 = 0
    /// Number of the last probe, which is its call's id; an answer to an earlier one counts for nothing.
    var probe: UInt64 = 0
    var sentAt: UInt64 = 0
    var isWaiting = false
    /// When the next probe is due, or the answer overdue.
    var nextAt = UInt64.max
    /// Probes in a row without their answer.
    var failures = 0
    var hasAnswered = false
    /// The beginning of an answer.
    var input: [UInt8] = []

    /// A probe that failed is repeated after this span, ns.
    var retryAfter: UInt64 { interval / 8 }
    /// Errors are short; more than this is no answer of poold's.
    static let maximumInput = 1 << 16
}
