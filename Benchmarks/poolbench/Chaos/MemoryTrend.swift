/// Whether poold's resident memory grows under load: Theil and Sen's slope over the second half of the run, when caches and tables have
/// reached their size. One sample out of three may be anything without moving it.
struct MemoryTrend {
    /// KiB a second.
    let slope: Double
    /// KiB over the second half.
    let growth: Double
    /// What growth may be chance: three times the spread of the samples around the line, at least 4 MiB.
    let noise: Double
    /// Median of the second half, KiB.
    let median: Double
    let samples: Int

    /// So many in the second half, over so long.
    static let leastSamples = 20
    static let leastSeconds = 60.0
    static let leastNoise = 4096.0
    /// Pairs grow with the square.
    private static let mostPoints = 600

    /// nil: too short a run to say.
    init?(_ points: [(seconds: Double, kibibytes: Double)]) {
        var half = Array(points[(points.count / 2)...])
        guard half.count >= Self.leastSamples, let first = half.first, let last = half.last, last.seconds - first.seconds >= Self.leastSeconds else {
            return nil
        }
        samples = half.count
        if half.count > Self.mostPoints {
            let step = Double(half.count) / Double(Self.mostPoints)
            half = (0..<Self.mostPoints).map { half[Int(Double($0) * step)] }
        }
        var slopes: [Double] = []
        for (at, left) in half.enumerated() {
            for right in half[(at + 1)...] where right.seconds > left.seconds {
                slopes.append((right.kibibytes - left.kibibytes) / (right.seconds - left.seconds))
            }
        }
        let slope = Report.median(slopes)
        let offset = Report.median(half.map { $0.kibibytes - slope * $0.seconds })
        let spread = Report.median(half.map { abs($0.kibibytes - slope * $0.seconds - offset) }) * 1.4826
        self.slope = slope
        growth = slope * (last.seconds - first.seconds)
        noise = max(Self.leastNoise, 3 * spread)
        median = Report.median(half.map(\.kibibytes))
    }

    var problem: String? {
        guard growth > noise else { return nil }
        return
            "poold's memory grew by \(Int(growth)) KiB over the second half of the run, \(Report.rounded(slope * 60)) KiB a minute; chance explains \(Int(noise)) KiB"
    }

    /// Close enough for forty samples in the second half of a run of five minutes, and not more than is needed in one of an hour.
    static func interval(seconds: Double) -> Double { min(10, max(1, seconds / 90)) }
}
