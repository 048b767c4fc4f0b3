import CPoold
import Glibc

/// Whether the machine had processor time to spare, so that its slowness is not taken for a fault of poold.
struct MachineLoad {
    struct Sample {
        var time: UInt64 = 0
        /// Of all processors, in ticks since the boot.
        var ticks: UInt64 = 0
        var idle: UInt64 = 0
        /// Nanoseconds that poold and this thread were ready to run and did not.
        var waited: [UInt64] = [0, 0]
    }
    /// Less than this share of all processors idle, or more than this share of the time waited for one: busy.
    static let leastIdle = 0.15
    static let mostWaited = 0.1
    /// A judgement looks back at least so far: a tick is 10 ms.
    private static let span: UInt64 = 1_000_000_000
    private static let capacity = 128
    private let poold: Int32
    private(set) var samples: [Sample] = []
    /// Of the intervals between samples.
    private(set) var intervals = 0
    private(set) var busyIntervals = 0

    init(poold: Int32) { self.poold = poold }

    /// To be called about twice a second.
    mutating func note(_ now: UInt64) {
        let sample = Self.read(poold, now)
        if let last = samples.last {
            intervals += 1
            if Self.isBusy(from: last, to: sample) { busyIntervals += 1 }
        }
        if samples.count == Self.capacity { samples.removeFirst() }
        samples.append(sample)
    }

    /// Since then, or in the last second.
    func isBusy(since time: UInt64, now: UInt64) -> Bool {
        let from = min(time, now > Self.span ? now - Self.span : 0)
        guard let first = samples.last(where: { $0.time <= from }) ?? samples.first else { return false }
        let last = Self.read(poold, now)
        // A call may have been open for seconds of which one was busy.
        let inside = samples.filter { $0.time >= first.time }
        return Self.isBusy(from: first, to: last) || zip(inside, inside.dropFirst()).contains { Self.isBusy(from: $0, to: $1) }
    }

    static func isBusy(from first: Sample, to last: Sample) -> Bool {
        let elapsed = Double(last.time &- first.time)
        guard elapsed > 0 else { return false }
        if zip(first.waited, last.waited).contains(where: { Double($1 &- $0) / elapsed > mostWaited }) { return true }
        let ticks = Double(last.ticks &- first.ticks)
        // A few ticks are too coarse.
        return ticks >= 20 && Double(last.idle &- first.idle) / ticks < leastIdle
    }

    private static func read(_ poold: Int32, _ now: UInt64) -> Sample {
        var sample = Sample(time: now)
        let line = String(decoding: ProcessCensus.contents("/proc/stat", limit: 512), as: UTF8.self).prefix { $0 != "\n" }
        let fields = line.split(separator: " ").dropFirst().compactMap { UInt64($0) }
        // user nice system idle iowait irq softirq steal; guests are in user already.
        if fields.count >= 8 {
            sample.ticks = fields[0..<8].reduce(0, +)
            sample.idle = fields[3] + fields[4]
        }
        sample.waited = [waited("/proc/\(poold)/schedstat"), waited("/proc/thread-self/schedstat")]
        return sample
    }

    private static func waited(_ path: String) -> UInt64 {
        let fields = String(decoding: ProcessCensus.contents(path, limit: 128), as: UTF8.self).split(whereSeparator: { $0 == " " || $0 == "\n" })
        return fields.count > 1 ? UInt64(fields[1]) ?? 0 : 0
    }
}
