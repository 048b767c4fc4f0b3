import PoolCore

/// The shadow model's own account of what the metrics must say, so that "lossless" holds under every fault.
struct MetricsTally {
    var refusals = [UInt64](repeating: 0, count: Refusal.Reason.allCases.count)
    var outcomes = [UInt64](repeating: 0, count: Outcome.allCases.count)
    var causes = [UInt64](repeating: 0, count: WorkerCause.allCases.count)
    /// Replies of calls that ran, and calls that were delivered, by method.
    var ran: [UInt64]
    var delivered: [UInt64]
    /// Calls whose callers waited for their end, by method.
    var waitedFor: [UInt64]
    /// Time of the machine at the start of the account; sums since then, in worker time and call time.
    var since: UInt64?
    var busy: UInt128 = 0
    var ready: UInt128 = 0
    var queued: UInt128 = 0
    var mostQueued = 0
    var scratch = StatsScratch()
    /// As the last event left it.
    var now = (ready: 0, busy: 0, queued: 0)

    init(methods: Int) {
        ran = Array(repeating: 0, count: methods)
        delivered = ran
        waitedFor = ran
    }
}

extension Simulation {
    /// Before the machine hears of a later time: nothing has changed until then.
    mutating func tallyTime(until time: UInt64) {
        defer { if tally.since == nil { tally.since = time } }
        guard tally.since != nil, time > told else { return }
        let span = UInt128(time - told)
        tally.ready += span * UInt128(tally.now.ready)
        tally.busy += span * UInt128(tally.now.busy)
        tally.queued += span * UInt128(tally.now.queued)
        tally.mostQueued = max(tally.mostQueued, tally.now.queued)
    }

    /// After an event: what stays so until the next.
    mutating func tallyState() {
        tally.now = (0, 0, waitingCalls)
        for worker in workers where worker.phase == .ready {
            tally.now.ready += 1
            if worker.outstanding > 0 { tally.now.busy += 1 }
        }
    }

    mutating func tallyEnd(_ outcome: Outcome, _ method: UInt16) {
        tally.outcomes[Int(outcome.rawValue)] += 1
        switch outcome {
        case .cancelledWaiting, .cancelledRunning: return
        case .timeoutWaiting, .timeoutRunning, .workerLost, .draining, .shed, .unavailable, .sessionLost: tally.waitedFor[Int(method)] += 1
        }
    }

    mutating func tallyPhase(from old: WorkerPhase, because before: WorkerCause, to phase: WorkerPhase, _ cause: WorkerCause) {
        switch phase {
        case .spawning, .ready: tally.causes[Int(cause.rawValue)] += 1
        case .starting: return
        case .draining, .terminating, .killing:
            let isOnItsWay = old == .draining || old == .terminating
            if !isOnItsWay || cause != before { tally.causes[Int(cause.ofDeparture.rawValue)] += 1 }
        case .empty:
            switch old {
            case .spawning, .starting, .ready: tally.causes[Int(cause.ofDeparture.rawValue)] += 1
            case .empty, .draining, .terminating, .killing: return
            }
        }
    }

    /// Everything since the start is as it was counted here, and no window contains more than a longer one.
    mutating func checkMetrics() throws(Violation) {
        let stats = machine.stats(now: Instant(nanoseconds: told), using: &tally.scratch)
        guard let all = stats.windows.first, stats.windows.count == PoolStats.WindowKind.allCases.count else { throw fail("stats without windows") }
        guard all.refusals == tally.refusals, all.outcomes == tally.outcomes, all.causes == tally.causes else {
            throw fail("stats count \(all.refusals), \(all.outcomes), \(all.causes); it was \(tally.refusals), \(tally.outcomes), \(tally.causes)")
        }
        guard all.refusals.reduce(0, +) == all.counters.refused else { throw fail("refusals by reason do not sum up to \(all.counters.refused)") }
        guard all.span == told - (tally.since ?? told) else { throw fail("stats cover \(all.span) ns of \(told - (tally.since ?? told))") }
        try checkSpans(stats, all)
        try checkIntegrals(all)
        var longer = all
        for window in stats.windows.dropFirst().reversed() {
            let counts = zip(window.spans, longer.spans).allSatisfy { $0.count <= $1.count }
            let tallies = zip(window.outcomes + window.refusals + window.causes, longer.outcomes + longer.refusals + longer.causes).allSatisfy { $0 <= $1 }
            guard counts, tallies, window.counters.arrived <= longer.counters.arrived, window.span <= longer.span,
                window.maximumQueueDepth <= longer.maximumQueueDepth
            else { throw fail("the window \(window.kind) contains more than \(longer.kind)") }
            guard window.span >= min(all.span, window.kind.span) else { throw fail("the window \(window.kind) covers only \(window.span) ns") }
            try checkWindow(window)
            longer = window
        }
    }

    private func checkSpans(_ stats: PoolStats, _ all: PoolStats.Window) throws(Violation) {
        var seen = [Bool](repeating: false, count: tally.ran.count)
        for entry in stats.methods {
            let method = Int(entry.method.index)
            seen[method] = true
            let waited = tally.waitedFor[method] + tally.delivered[method]
            guard entry.results + entry.errors == tally.delivered[method], entry.spans[SpanKind.service.rawValue].count == tally.ran[method],
                entry.spans[SpanKind.latency.rawValue].count == waited, entry.spans[SpanKind.wait.rawValue].count == waited
            else { throw fail("stats of method \(method) are \(entry); \(tally.ran[method]) ran, \(tally.delivered[method]) delivered, \(waited) waited for") }
        }
        for method in seen.indices where !seen[method] && tally.ran[method] + tally.waitedFor[method] > 0 { throw fail("no stats of method \(method)") }
        try checkWindow(all)
    }

    /// Histograms hold as many calls as ended in those ways.
    private func checkWindow(_ window: PoolStats.Window) throws(Violation) {
        let counted = window.counters
        let waitedFor = counted.results + counted.errors + counted.timeouts + counted.workerLost + counted.dropped
        guard window.spans[SpanKind.latency.rawValue].count == waitedFor, window.spans[SpanKind.wait.rawValue].count == waitedFor else {
            throw fail("latencies of \(window.spans[SpanKind.latency.rawValue].count) calls in \(window.kind); \(waitedFor) were waited for")
        }
        guard window.outcomes.reduce(0, +) == counted.timeouts + counted.workerLost + counted.dropped + counted.cancelled else {
            throw fail("ends by outcome do not sum up in \(window.kind)")
        }
    }

    private func checkIntegrals(_ all: PoolStats.Window) throws(Violation) {
        let utilization = tally.ready == 0 ? 0 : Double(tally.busy) / Double(tally.ready)
        let depth = all.span == 0 ? 0 : Double(tally.queued) / Double(all.span)
        guard abs(all.utilization - utilization) < 1e-9, abs(all.meanQueueDepth - depth) <= 1e-9 * max(1, depth), all.maximumQueueDepth == tally.mostQueued
        else {
            throw fail(
                "utilization \(all.utilization), queue \(all.meanQueueDepth), at most \(all.maximumQueueDepth); it was \(utilization), \(depth), \(tally.mostQueued)"
            )
        }
    }
}
