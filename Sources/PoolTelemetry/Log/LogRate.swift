/// A bucket of lines: `perSecond` more each second, ten seconds' worth at most. The last second's worth is for warnings
/// and errors alone, so that a flood of information does not hide what matters.
package struct LogRate: Sendable {
    private var perSecond: Double
    private var allowance: Double
    private var refilled: UInt64
    /// When suppressed lines were told last.
    private var told: UInt64?
    package private(set) var suppressed = 0

    /// 0: no limit.
    package init(perSecond: Int, now: UInt64) {
        self.perSecond = Double(max(perSecond, 0))
        allowance = self.perSecond * 10
        refilled = now
    }

    /// Another rate from now on; what was suppressed stays to be told.
    package mutating func change(perSecond: Int, now: UInt64) {
        guard Double(max(perSecond, 0)) != self.perSecond else { return }
        self.perSecond = Double(max(perSecond, 0))
        allowance = self.perSecond * 10
        refilled = now
    }

    /// Whether a line may be written. `now`: CLOCK_MONOTONIC, ns.
    package mutating func allows(isUrgent: Bool, now: UInt64) -> Bool {
        guard perSecond > 0 else { return true }
        if now > refilled { allowance = min(perSecond * 10, allowance + Double(now - refilled) / 1e9 * perSecond) }
        refilled = max(refilled, now)
        guard allowance >= (isUrgent ? 1 : perSecond + 1) else {
            suppressed += 1
            return false
        }
        allowance -= 1
        return true
    }

    /// How many lines were not written since that was told last, if it is to be told now: at most once a second, or a flood would
    /// bring a line about itself with every line that passes. That line is one of the rate's too.
    package mutating func takeSuppressed(now: UInt64) -> Int {
        guard suppressed > 0, told.map({ now >= $0 + 1_000_000_000 }) ?? true else { return 0 }
        told = now
        if perSecond > 0 { allowance -= 1 }
        defer { suppressed = 0 }
        return suppressed
    }
}
