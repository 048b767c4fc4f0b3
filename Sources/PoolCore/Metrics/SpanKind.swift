/// What is measured of a call. Which calls are in it is part of the definition, so that nobody reads a short percentile out of a
/// pool in which the slow calls time out.
package enum SpanKind: Int, CaseIterable, Sendable {
    /// From its arrival until the worker with which it ended was given it; for a call that waited when it ended, until its end. Of the
    /// same calls as `latency`. Time that a call sent ahead waits at its worker (about a millisecond at most) is not in it.
    case wait
    /// How long it ran, as the worker measured it: of every reply of a call that ran, also where nobody waited for it any more.
    case service
    /// From its arrival to its end in poold, of every call that was taken and whose caller waited for the end: result, error,
    /// timeout, lost with its worker, dropped. Not of those that the caller gave up (cancelled, abandoned), and not of refusals,
    /// which take no time.
    case latency
    static let count = 3
}

/// Percentiles of one kind of span, nanoseconds, to two significant digits: each is the upper end of its bucket.
package struct SpanQuantiles: Sendable, Equatable {
    package var count: UInt64 = 0
    package var mean = 0.0
    package var minimum: Nanoseconds = 0
    package var p50: Nanoseconds = 0
    package var p90: Nanoseconds = 0
    package var p95: Nanoseconds = 0
    package var p99: Nanoseconds = 0
    package var p999: Nanoseconds = 0
    package var maximum: Nanoseconds = 0
    package init() {}
}
