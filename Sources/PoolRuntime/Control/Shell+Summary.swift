import PoolConfig
import PoolCore

extension Shell {
    /// What an operator wants to read in one line: `3 pools, 11/12 workers ready, 42 queued, p99 18 ms`. The p99 is of the latency
    /// of all calls of the last minute; it is left out when there were none. Pools that are poold's own are not in it.
    ///
    /// Some microseconds for a pool that was called of late: cheap enough for every few seconds.
    mutating func summary() -> String {
        var recent = MergedHistogram()
        var (count, ready, wanted, queued) = (0, 0, 0, 0)
        for pool in 0..<poolCount where !pools[pool].isRemoved && !pools[pool].configuration.isReserved {
            let load = pools[pool].machine.load
            count += 1
            ready += load.ready
            wanted += load.wanted
            queued += load.queued
            pools[pool].machine.addRecentLatency(now: Instant(nanoseconds: now), to: &recent)
        }
        var text = "\(count) pool\(count == 1 ? "" : "s"), \(ready)/\(wanted) workers ready, \(queued) queued"
        if recent.total > 0 { text += ", p99 \(Self.readable(recent.quantile(0.99)))" }
        return text
    }

    /// Two or three digits and a unit.
    static func readable(_ span: Nanoseconds) -> String {
        let units: [(Nanoseconds, String)] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")]
        for (unit, name) in units where span >= unit {
            guard span < 10 * unit else { return "\((span + unit / 2) / unit) \(name)" }
            let tenths = (span * 10 + unit / 2) / unit
            return tenths % 10 == 0 ? "\(tenths / 10) \(name)" : "\(tenths / 10).\(tenths % 10) \(name)"
        }
        return "\(span) ns"
    }
}
