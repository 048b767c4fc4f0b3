import Histogram
import Testing

@testable import PoolCore

struct MetricsTests {
    /// Any 64 bits, a span of any magnitude.
    private static func spans(_ count: Int) -> [UInt64] {
        var random = RandomSource(state: 11)
        return (0..<count).map { _ in
            let bits = random.next()
            return min(random.next() >> (18 + bits % 46), HistogramLayout.longest)
        }
    }

    @Test func bucketsTileAllSpans() {
        for index in 0..<HistogramLayout.buckets - 1 {
            #expect(HistogramLayout.highest(index) + 1 == HistogramLayout.lowest(index + 1))
            let (low, high) = (HistogramLayout.lowest(index), HistogramLayout.highest(index))
            guard high <= HistogramLayout.longest else { continue }
            #expect(HistogramLayout.index(of: low) == index)
            #expect(HistogramLayout.index(of: high) == index)
            #expect(high - low < 128 || Double(high - low) / Double(low) < 1.0 / 127)
        }
        #expect(HistogramLayout.index(of: .max) == HistogramLayout.index(of: HistogramLayout.longest))
        #expect(HistogramLayout.index(of: .max) < HistogramLayout.buckets)
    }

    @Test func quantilesAreThoseOfHdrHistogram() {
        for count in [1, 2, 10, 99, 100, 101, 1_000, 20_000] {
            var reference = Histogram<UInt64>(
                lowestDiscernibleValue: 128, highestTrackableValue: HistogramLayout.longest, numberOfSignificantValueDigits: .two)
            var merged = MergedHistogram()
            for span in Self.spans(count) {
                reference.record(span)
                merged.add(HistogramLayout.index(of: span), 1)
            }
            let said = merged.quantiles
            #expect(said.count == reference.totalCount)
            for (percent, value) in [(50.0, said.p50), (90, said.p90), (95, said.p95), (99, said.p99), (99.9, said.p999)] {
                // The library cuts the last bucket at the greatest span; here every percentile is the end of its bucket.
                let expected = reference.valueAtPercentile(percent)
                #expect(HistogramLayout.index(of: value) == HistogramLayout.index(of: expected), "p\(percent) of \(count)")
                #expect(merged.quantile(percent / 100) == value)
            }
            #expect(HistogramLayout.index(of: said.maximum) == HistogramLayout.index(of: reference.maxRecorded))
            #expect(abs(said.mean - reference.mean) <= reference.mean * 0.01 + 128)
        }
    }

    @Test func slicesAndMethodsKeepEveryCount() throws {
        var histograms = MethodHistograms()
        var slices: [SparseHistograms] = []
        let spans = Self.spans(5_000)
        for (at, span) in spans.enumerated() {
            histograms.record(UInt16(at % 7), SpanKind.allCases[at % 3], span)
            if at % 800 == 799 { slices.append(histograms.takeSlice()) }
        }
        for kind in SpanKind.allCases {
            var (windows, methods, direct) = (MergedHistogram(), MergedHistogram(), MergedHistogram())
            for slice in slices { slice.add(kind, to: &windows) }
            histograms.addCurrent(kind, to: &windows)
            for method in 0..<histograms.methods { histograms.add(method, kind, to: &methods) }
            for (at, span) in spans.enumerated() where at % 3 == kind.rawValue { direct.add(HistogramLayout.index(of: span), 1) }
            #expect(windows.quantiles == direct.quantiles)
            #expect(methods.quantiles == direct.quantiles)
        }
        var sparse = SparseHistograms()
        sparse.append(.latency, block: 3, [5_000_000] + Array(repeating: 0, count: 127))
        var merged = MergedHistogram()
        sparse.add(.latency, to: &merged)
        #expect(merged.total == 5_000_000)
    }

    @Test func windowsSlideOverLoadAndSilence() {
        var bench = Bench()
        bench.start()
        var served: UInt64 = 0
        var scratch = StatsScratch()
        func stats(_ bench: inout Bench) -> [PoolStats.Window] { bench.machine.stats(now: bench.now, using: &scratch).windows }
        // One call of 1 s every 2 s: half busy.
        for _ in 0..<60 {
            let worker = WorkerID(slot: 0, generation: 1)
            served += 1
            _ = bench.apply(.callArrived(Arrival(identity: IdentityID(index: 0), method: MethodID(index: 0))), after: 1_000_000_000)
            _ = bench.apply(.workerReplied(worker, number: served, kind: .result, ran: 900_000_000), after: 1_000_000_000)
        }
        var windows = stats(&bench)
        #expect(windows[0].counters.results == 60 && windows[2].counters.results == 60 && windows[3].counters.results == 60)
        #expect((30...36).contains(windows[1].counters.results))
        #expect(windows.allSatisfy { abs($0.utilization - 0.5) < 0.01 })
        #expect(windows[1].span >= 60_000_000_000 && windows[1].span <= 70_000_000_000)
        #expect(windows[0].spans[SpanKind.service.rawValue].count == 60)
        #expect(abs(Double(windows[0].spans[SpanKind.latency.rawValue].p50) - 1e9) < 1e7)
        // Ten minutes of nothing: it is in the last quarter of an hour, not in the last five minutes.
        bench.now = bench.now + 600_000_000_000
        windows = stats(&bench)
        #expect(windows.map(\.counters.results) == [60, 0, 0, 60])
        #expect(windows[2].utilization == 0 && windows[2].spans[SpanKind.latency.rawValue].count == 0)
        #expect(windows[1].span == 60_000_000_000)
        #expect(abs(windows[3].utilization - 60.0 / 720) < 0.01)
        // A day.
        bench.now = bench.now + 86_400_000_000_000
        windows = stats(&bench)
        #expect(windows.map(\.counters.results) == [60, 0, 0, 0])
        #expect(windows[3].span >= 900_000_000_000 && windows[3].span <= 910_000_000_000)
    }
}
