import Foundation
import Histogram

/// One result as text for people or as JSON with a stable shape.
enum Report {
    static func percentiles(_ histogram: Histogram<UInt64>) -> [(String, UInt64)] {
        [("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p99_9", 99.9)].map { ($0.0, histogram.totalCount > 0 ? histogram.valueAtPercentile($0.1) : 0) }
    }

    static func json(_ result: LoadResult) -> String {
        func object(_ histogram: Histogram<UInt64>) -> String {
            "{" + percentiles(histogram).map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ") + ", \"count\": \(histogram.totalCount)}"
        }
        let errors = result.errors.sorted { $0.key < $1.key }.map { "\"\($0.key)\": \($0.value)" }.joined(separator: ", ")
        return """
            {"calls_per_second": \(rounded(result.perSecond)), "results": \(result.results), "seconds": \(rounded(result.seconds)), \
            "latency_microseconds": \(object(result.latency)), "waited_microseconds": \(object(result.waited)), \
            "refusal_microseconds": \(object(result.refusal)), "predicted_wait_microseconds": \(object(result.predicted)), \
            "errors": {\(errors)}, "server_cpu_microseconds_per_call": \(rounded(result.serverMicrosecondsPerCall)), "server_resident_kib": \(result.serverResidentKiB)}
            """
    }

    static func text(_ result: LoadResult) -> String {
        var lines = ["\(Int(result.perSecond)) results/s over \(rounded(result.seconds)) s"]
        lines.append("latency µs: " + percentiles(result.latency).map { "\($0.0) \($0.1)" }.joined(separator: "  "))
        if !result.errors.isEmpty {
            lines.append("errors: " + result.errors.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        }
        lines.append("server: \(rounded(result.serverMicrosecondsPerCall)) µs CPU a call, \(result.serverResidentKiB) KiB resident")
        return lines.joined(separator: "\n")
    }

    static func rounded(_ value: Double) -> Double { (value * 100).rounded() / 100 }

    /// Bounds of the median at 95 % confidence or a little more, whatever the distribution: order statistics by the sign test. nil: too few.
    static func medianInterval(_ values: [Double]) -> (low: Double, high: Double)? {
        let sorted = values.sorted()
        // Chance of at most `rank` of n fair coins, summed up from none.
        // By its logarithm: with a thousand coins the first chances are too small for a Double.
        var logarithm = -Double(sorted.count) * log(2)
        var sum = 0.0
        var rank = 0
        while sum + exp(logarithm) <= 0.025 {
            sum += exp(logarithm)
            logarithm += log(Double(sorted.count - rank) / Double(rank + 1))
            rank += 1
        }
        guard rank > 0 else { return nil }
        return (sorted[rank - 1], sorted[sorted.count - rank])
    }

    static func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        guard !sorted.isEmpty else { return 0 }
        return sorted.count % 2 == 1 ? sorted[sorted.count / 2] : (sorted[sorted.count / 2 - 1] + sorted[sorted.count / 2]) / 2
    }
}
