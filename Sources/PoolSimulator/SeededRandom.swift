/// SplitMix64: every draw of a run comes from its seed.
package struct SeededRandom {
    private var state: UInt64
    package init(seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 &+ 0x1234_5678_9abc_def1 }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// 0 ..< bound; 0 if bound is 0.
    package mutating func below(_ bound: Int) -> Int { bound > 0 ? Int(next() % UInt64(bound)) : 0 }
    package mutating func span(_ low: UInt64, _ high: UInt64) -> UInt64 { low + next() % (high - low + 1) }
    /// True in `percent` of the cases.
    package mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    package mutating func perMille(_ share: Int) -> Bool { below(1000) < share }
    /// A span whose logarithm is even: microseconds as likely as minutes.
    package mutating func anySpan(maximumBits: Int) -> UInt64 { next() >> UInt64(64 - 1 - below(maximumBits)) }
}
