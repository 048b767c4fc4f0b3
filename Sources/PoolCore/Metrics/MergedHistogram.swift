/// A histogram to read from: filled by adding others, then asked for its percentiles.
package struct MergedHistogram: Sendable {
    private var counts = [UInt64](repeating: 0, count: HistogramLayout.buckets)
    /// Blocks that hold something, by bit.
    private var occupied: UInt64 = 0
    package private(set) var total: UInt64 = 0

    package init() {}

    mutating func add(_ index: Int, _ count: UInt64) {
        counts[index] &+= count
        total &+= count
        occupied |= 1 << UInt64(index >> Int(HistogramLayout.halfMagnitude))
    }

    package mutating func add(_ other: MergedHistogram) {
        var rest = other.occupied
        while rest != 0 {
            let start = rest.trailingZeroBitCount << Int(HistogramLayout.halfMagnitude)
            rest &= rest - 1
            for index in start..<start + HistogramLayout.blockSize { counts[index] &+= other.counts[index] }
        }
        total &+= other.total
        occupied |= other.occupied
    }

    /// Touches only what holds something.
    mutating func removeAll() {
        while occupied != 0 {
            let start = occupied.trailingZeroBitCount << Int(HistogramLayout.halfMagnitude)
            occupied &= occupied - 1
            for index in start..<start + HistogramLayout.blockSize { counts[index] = 0 }
        }
        total = 0
    }

    /// The span that `share` of all do not exceed, the upper end of its bucket; 0: there are none.
    package func quantile(_ share: Double) -> Nanoseconds {
        var left = threshold(share)
        var found: Nanoseconds = 0
        forEach { index, count in
            guard left > 0 else { return }
            found = HistogramLayout.highest(index)
            left = count >= left ? 0 : left - count
        }
        return found
    }

    private func threshold(_ share: Double) -> UInt64 {
        // A hair less, so that 0.99 of 100 is 99 and not 100 by rounding.
        min(total, max(1, UInt64(((share.nextDown) * Double(total)).rounded(.up))))
    }

    /// All that is shown, in one pass.
    package var quantiles: SpanQuantiles {
        var result = SpanQuantiles()
        guard total > 0 else { return result }
        let shares = [threshold(0.5), threshold(0.9), threshold(0.95), threshold(0.99), threshold(0.999)]
        var found: [Nanoseconds] = []
        found.reserveCapacity(shares.count)
        var seen: UInt64 = 0
        var sum = 0.0
        forEach { index, count in
            let (low, high) = (HistogramLayout.lowest(index), HistogramLayout.highest(index))
            if seen == 0 { result.minimum = low }
            seen &+= count
            // The first bucket holds the calls that did not wait at all.
            sum += Double(count) * (index == 0 ? 0 : Double(low) + Double(high - low) / 2)
            while found.count < shares.count, seen >= shares[found.count] { found.append(high) }
            result.maximum = high
        }
        (result.p50, result.p90, result.p95, result.p99, result.p999) = (found[0], found[1], found[2], found[3], found[4])
        result.count = total
        result.mean = sum / Double(total)
        return result
    }

    private func forEach(_ body: (Int, UInt64) -> Void) {
        var rest = occupied
        while rest != 0 {
            let start = rest.trailingZeroBitCount << Int(HistogramLayout.halfMagnitude)
            rest &= rest - 1
            for index in start..<start + HistogramLayout.blockSize where counts[index] > 0 { body(index, counts[index]) }
        }
    }
}

/// Room to add histograms up in, for the stats of one pool after the other: made once, for a dense histogram has 34 KiB.
package struct StatsScratch: Sendable {
    var method = MergedHistogram()
    /// By `SpanKind`.
    var sinceStart = SpanKind.allCases.map { _ in MergedHistogram() }
    var window = SpanKind.allCases.map { _ in MergedHistogram() }
    package init() {}

    mutating func removeAll() {
        method.removeAll()
        for kind in SpanKind.allCases {
            sinceStart[kind.rawValue].removeAll()
            window[kind.rawValue].removeAll()
        }
    }
}
