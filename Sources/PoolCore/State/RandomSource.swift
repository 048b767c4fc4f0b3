/// SplitMix64: the machine's own seeded generator (Steele, Lea, Flood 2014). Used for jitter only.
struct RandomSource {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// `value` varied by up to ± `percent`.
    mutating func jitter(_ value: UInt64, percent: UInt64) -> UInt64 {
        let percent = min(percent, 100)
        // Small values are multiplied first: a hundredth of 50 calls is none.
        let span = value < 1 << 56 ? value * percent / 100 : value / 100 * percent
        guard span > 0 else { return value }
        return value - span + next() % (2 * span + 1)
    }
}
