/// What `poolctl stats` shows of one pool: a copy, made on request.
package struct PoolStats: Sendable {
    /// Since the start, or the last minutes. A window begins with a slice of ten seconds, so that it is up to so much longer than
    /// its name says; it is shorter while the pool is young.
    package enum WindowKind: Int, CaseIterable, Sendable {
        case start, oneMinute, fiveMinutes, fifteenMinutes

        package var span: Nanoseconds {
            switch self {
            case .start: return .max
            case .oneMinute: return 60_000_000_000
            case .fiveMinutes: return 300_000_000_000
            case .fifteenMinutes: return PoolMetrics.kept
            }
        }
    }

    package struct Window: Sendable {
        package var kind: WindowKind
        package var span: Nanoseconds = 0
        package var counters = PoolCounters()
        /// Refusals by reason, ends by outcome, changes of workers by cause; by raw value.
        package var refusals: [UInt64] = []
        package var outcomes: [UInt64] = []
        package var causes: [UInt64] = []
        /// Busy worker time over ready worker time, 0 to 1.
        package var utilization = 0.0
        package var meanQueueDepth = 0.0
        /// Greatest that lasted: from one reading of the clock to a later one.
        package var maximumQueueDepth = 0
        /// By `SpanKind`.
        package var spans: [SpanQuantiles] = []
    }

    package struct Method: Sendable {
        package var method: MethodID
        package var results: UInt64
        package var errors: UInt64
        /// By `SpanKind`.
        package var spans: [SpanQuantiles]
    }

    package var wanted = 0
    /// Workers by the raw value of their phase; `empty` is not counted.
    package var phases = [Int](repeating: 0, count: WorkerPhase.allCases.count)
    package var queuedCalls = 0
    package var predictedWait: Nanoseconds = 0
    package var windows: [Window] = []
    /// Those that were called.
    package var methods: [Method] = []
    package init() {}
}
