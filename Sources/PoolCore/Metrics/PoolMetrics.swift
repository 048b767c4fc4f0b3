/// What a pool has done, counted without loss: since its start, and in slices of ten seconds for the last quarter of an hour.
///
/// Everything but the histograms only ever grows, and a slice keeps what stood there when it began: what happened in a window is the
/// difference, so that windows cost nothing on the path of a call. There is no timer either: the first event after the end of a slice
/// closes it, and a time without events becomes one slice in which nothing changes.
struct PoolMetrics {
    static let sliceSpan: Nanoseconds = 10_000_000_000
    /// The longest window.
    static let kept: Nanoseconds = 900_000_000_000

    /// Sums over time of a number of things: things × nanoseconds. 128 bits, for 64 are full after a week of long queues.
    struct Integrals: BitwiseCopyable {
        var busy: UInt128 = 0
        var ready: UInt128 = 0
        var queued: UInt128 = 0
    }

    /// Refusals by reason, ends by outcome, phases of workers by cause.
    struct Tallies {
        static let outcomes = Refusal.Reason.allCases.count
        static let causes = outcomes + Outcome.allCases.count
        static let count = causes + WorkerCause.allCases.count
    }

    struct Slice {
        var begin = Instant.zero
        /// As it began.
        var counters = PoolCounters()
        var tallies: [UInt64] = []
        var integrals = Integrals()
        var mostQueued: UInt32 = 0
        /// Nothing happened in it: what was, stayed as it was.
        var isQuiet = false
        /// Once it is over.
        var histograms = SparseHistograms()
    }

    private(set) var started = Instant.never
    private(set) var last = Instant.zero
    /// When the slice at hand is over; zero until the first event.
    private(set) var sliceEnd = Instant.zero
    var integrals = Integrals()
    private(set) var mostQueued: UInt32 = 0
    var tallies = [UInt64](repeating: 0, count: Tallies.count)
    /// Results and errors of each method.
    private(set) var replies: [UInt64] = []
    var histograms = MethodHistograms()
    /// Finished slices, the oldest first.
    private(set) var slices: [Slice] = []
    private(set) var slice = Slice()

    // MARK: - On the path of a call

    /// Time has passed since the last event and nothing has changed; comes before every event.
    @inline(__always) mutating func advance(to now: Instant, busy: Int, ready: Int, queued: Int, _ counters: PoolCounters) {
        guard now > last || started == .never else { return }
        if now >= sliceEnd { rotate(now, busy: busy, ready: ready, queued: queued, counters) }
        integrate(to: now, busy: busy, ready: ready, queued: queued)
    }

    @inline(__always) private mutating func integrate(to now: Instant, busy: Int, ready: Int, queued: Int) {
        let span = now.since(last)
        guard span > 0 else { return }
        last = now
        // What lasted counts: calls taken back and sent on within one turn of the loop waited for nobody.
        if queued > Int(slice.mostQueued) { slice.mostQueued = UInt32(truncatingIfNeeded: queued) }
        integrals.busy &+= UInt128(span) &* UInt128(busy)
        integrals.ready &+= UInt128(span) &* UInt128(ready)
        integrals.queued &+= UInt128(span) &* UInt128(queued)
    }

    @inline(__always) mutating func noteReply(_ method: UInt16, isResult: Bool) {
        let at = Int(method) * 2 + (isResult ? 0 : 1)
        if at >= replies.count { replies.append(contentsOf: repeatElement(0, count: Int(method) * 2 + 2 - replies.count)) }
        replies[at] &+= 1
    }

    func replies(_ method: Int) -> (results: UInt64, errors: UInt64) {
        method * 2 + 1 < replies.count ? (replies[method * 2], replies[method * 2 + 1]) : (0, 0)
    }

    var methods: Int { max(replies.count / 2, histograms.methods) }
    /// Most that waited at once, ever.
    var mostQueuedEver: UInt32 { max(mostQueued, slice.mostQueued) }

    mutating func note(_ reason: Refusal.Reason) { tallies[Int(reason.rawValue)] &+= 1 }
    mutating func note(_ outcome: Outcome) { tallies[Tallies.outcomes + Int(outcome.rawValue)] &+= 1 }
    mutating func note(_ cause: WorkerCause) { tallies[Tallies.causes + Int(cause.rawValue)] &+= 1 }

    // MARK: - Slices

    @inline(never) private mutating func rotate(_ now: Instant, busy: Int, ready: Int, queued: Int, _ counters: PoolCounters) {
        guard started != .never else {
            started = now
            last = now
            return open(at: now, counters)
        }
        integrate(to: sliceEnd, busy: busy, ready: ready, queued: queued)
        close()
        // Slices in which nothing happened are one, up to the one that now is in.
        let missed = now.since(sliceEnd) / Self.sliceSpan
        if missed > 0 {
            let quietEnd = sliceEnd + missed * Self.sliceSpan
            open(at: sliceEnd, counters)
            slice.isQuiet = true
            integrate(to: quietEnd, busy: busy, ready: ready, queued: queued)
            close()
            sliceEnd = quietEnd
        }
        open(at: sliceEnd, counters)
        let oldest = Instant(nanoseconds: now.since(Instant(nanoseconds: Self.kept)))
        var gone = 0
        while gone + 1 < slices.count, slices[gone + 1].begin <= oldest { gone += 1 }
        if gone > 0 { slices.removeFirst(gone) }
    }

    private mutating func close() {
        slice.histograms = histograms.takeSlice()
        mostQueued = max(mostQueued, slice.mostQueued)
        slices.append(slice)
    }

    private mutating func open(at begin: Instant, _ counters: PoolCounters) {
        slice = Slice(begin: begin, counters: counters, tallies: tallies, integrals: integrals)
        sliceEnd = begin + Self.sliceSpan
    }

    // MARK: - Encoding

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&started)
        coder.code(&last)
        coder.code(&sliceEnd)
        integrals.code(&coder)
        coder.codeCompact(&mostQueued)
        coder.code(&tallies, empty: 0) { $1.codeCompact(&$0) }
        coder.code(&replies, empty: 0) { $1.codeCompact(&$0) }
        histograms.code(&coder)
        coder.code(&slices, empty: Slice()) { $0.code(&$1) }
        slice.code(&coder)
        guard coder.isReading else { return }
        var isSound = tallies.count == Tallies.count && replies.count % 2 == 0 && replies.count <= 2 * PoolPolicy.maximumMethods
        if started != .never && slice.tallies.count != Tallies.count { isSound = false }
        for slice in slices where slice.tallies.count != Tallies.count { isSound = false }
        if !isSound {
            coder.fail()
            self = PoolMetrics()
        }
    }
}

extension PoolMetrics.Integrals {
    mutating func code(_ coder: inout StateCoder) {
        Self.code(&busy, &coder)
        Self.code(&ready, &coder)
        Self.code(&queued, &coder)
    }

    private static func code(_ value: inout UInt128, _ coder: inout StateCoder) {
        var (low, high) = (UInt64(truncatingIfNeeded: value), UInt64(truncatingIfNeeded: value >> 64))
        coder.codeCompact(&low)
        coder.codeCompact(&high)
        value = UInt128(high) << 64 | UInt128(low)
    }
}

extension PoolMetrics.Slice {
    mutating func code(_ coder: inout StateCoder) {
        coder.code(&begin)
        counters.codeCompact(&coder)
        coder.code(&tallies, empty: 0) { $1.codeCompact(&$0) }
        integrals.code(&coder)
        coder.codeCompact(&mostQueued)
        coder.code(&isQuiet)
        histograms.code(&coder)
    }
}

extension PoolCounters {
    /// Every field, with the same one of another.
    private mutating func forEachField(_ other: PoolCounters, _ body: (inout UInt64, UInt64) -> Void) {
        body(&arrived, other.arrived)
        body(&refused, other.refused)
        body(&results, other.results)
        body(&errors, other.errors)
        body(&timeouts, other.timeouts)
        body(&cancelled, other.cancelled)
        body(&abandoned, other.abandoned)
        body(&workerLost, other.workerLost)
        body(&dropped, other.dropped)
        body(&retried, other.retried)
        body(&takenBack, other.takenBack)
        body(&spawned, other.spawned)
        body(&startFailures, other.startFailures)
        body(&deaths, other.deaths)
        body(&recycled, other.recycled)
        body(&kills, other.kills)
    }

    mutating func codeCompact(_ coder: inout StateCoder) {
        forEachField(self) { field, _ in coder.codeCompact(&field) }
    }

    /// What was counted since `earlier`.
    func since(_ earlier: PoolCounters) -> PoolCounters {
        var difference = self
        difference.forEachField(earlier) { $0 &-= $1 }
        return difference
    }
}
