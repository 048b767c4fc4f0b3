extension PoolMetrics {
    /// Where a window begins, and what stood there.
    private struct Beginning {
        var begin: Instant
        var counters = PoolCounters()
        var tallies = [UInt64](repeating: 0, count: Tallies.count)
        var integrals = Integrals()
        /// The first finished slice that belongs to it.
        var firstSlice = 0
    }

    private func beginning(of kind: PoolStats.WindowKind) -> Beginning {
        guard kind != .start else { return Beginning(begin: started == .never ? last : started) }
        let wanted = Instant(nanoseconds: last.since(Instant(nanoseconds: kind.span)))
        for (at, old) in slices.enumerated() {
            let next = at + 1 < slices.count ? slices[at + 1] : slice
            guard next.begin > wanted else { continue }
            var found = Beginning(begin: old.begin, counters: old.counters, tallies: old.tallies, integrals: old.integrals, firstSlice: at)
            if old.isQuiet && wanted > old.begin {
                // It may be long; within it everything grows evenly.
                found.begin = wanted
                let (part, whole) = (UInt128(wanted.since(old.begin)), UInt128(next.begin.since(old.begin)))
                found.integrals.busy &+= (next.integrals.busy &- old.integrals.busy) / whole &* part
                found.integrals.ready &+= (next.integrals.ready &- old.integrals.ready) / whole &* part
                found.integrals.queued &+= (next.integrals.queued &- old.integrals.queued) / whole &* part
            }
            return found
        }
        return Beginning(begin: slice.begin, counters: slice.counters, tallies: slice.tallies, integrals: slice.integrals, firstSlice: slices.count)
    }

    /// All windows; `sinceStart` is what the methods' histograms sum up to, `window` is empty.
    func windows(_ counters: PoolCounters, using scratch: inout StatsScratch) -> [PoolStats.Window] {
        for kind in SpanKind.allCases { histograms.addCurrent(kind, to: &scratch.window[kind.rawValue]) }
        // Each window contains the shorter ones: going back in time, every slice is added once.
        var from = slices.count
        var windows: [PoolStats.Window] = []
        for kind in PoolStats.WindowKind.allCases {
            let start = beginning(of: kind)
            var window = PoolStats.Window(kind: kind)
            window.span = last.since(start.begin)
            window.counters = counters.since(start.counters)
            let counts = zip(tallies, start.tallies).map { $0 &- $1 }
            window.refusals = Array(counts[..<Tallies.outcomes])
            window.outcomes = Array(counts[Tallies.outcomes..<Tallies.causes])
            window.causes = Array(counts[Tallies.causes...])
            let ready = integrals.ready &- start.integrals.ready
            if ready > 0 { window.utilization = min(1, Double(integrals.busy &- start.integrals.busy) / Double(ready)) }
            if window.span > 0 { window.meanQueueDepth = Double(integrals.queued &- start.integrals.queued) / Double(window.span) }
            guard kind != .start else {
                window.maximumQueueDepth = Int(mostQueuedEver)
                window.spans = scratch.sinceStart.map(\.quantiles)
                windows.append(window)
                continue
            }
            while from > start.firstSlice {
                from -= 1
                for kind in SpanKind.allCases { slices[from].histograms.add(kind, to: &scratch.window[kind.rawValue]) }
            }
            var most = slice.mostQueued
            for at in start.firstSlice..<slices.count { most = max(most, slices[at].mostQueued) }
            window.maximumQueueDepth = Int(most)
            window.spans = scratch.window.map(\.quantiles)
            windows.append(window)
        }
        return windows
    }

    /// Spans of one kind over the last minute.
    func addLastMinute(_ kind: SpanKind, to merged: inout MergedHistogram) {
        histograms.addCurrent(kind, to: &merged)
        for at in beginning(of: .oneMinute).firstSlice..<slices.count { slices[at].histograms.add(kind, to: &merged) }
    }
}
