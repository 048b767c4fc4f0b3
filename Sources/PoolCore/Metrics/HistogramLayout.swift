/// Where a span of time is counted: the buckets of an HDR histogram (Tene) with two significant digits, from 128 ns to a day.
///
/// Below 32 µs the buckets are 128 ns wide; above, each doubling is cut into 128 of them, so that a bucket is never wider than 1/128
/// of what it holds. The index is that of the HdrHistogram libraries for the same unit and digits (a test compares). They come in
/// blocks of 128, so that only the doublings in which something fell take memory: a few, of the 34.
enum HistogramLayout {
    /// 128 ns, as a power of two.
    static let unitMagnitude: UInt64 = 7
    /// Half a bucket's sub-buckets, as a power of two.
    static let halfMagnitude: UInt64 = 7
    /// Buckets of a block.
    static let blockSize = 1 << Int(halfMagnitude)
    /// Longer spans count as this one: a day.
    static let longest: Nanoseconds = 86_400_000_000_000
    static let blocks = 34
    static let buckets = blocks * blockSize

    private static let mask: UInt64 = (1 << (unitMagnitude + halfMagnitude + 1)) - 1
    private static let leadingZeros = Int(64 - unitMagnitude - halfMagnitude - 1)

    @inline(__always) static func index(of value: Nanoseconds) -> Int {
        let value = min(value, longest)
        let octave = leadingZeros - (value | mask).leadingZeroBitCount
        let part = Int(truncatingIfNeeded: value &>> (UInt64(truncatingIfNeeded: octave) &+ unitMagnitude))
        return octave &<< Int(halfMagnitude) &+ part
    }

    /// The least span that is counted there.
    static func lowest(_ index: Int) -> Nanoseconds {
        let block = index >> Int(halfMagnitude)
        guard block > 1 else { return UInt64(index) << unitMagnitude }
        let part = UInt64(index & (blockSize - 1) | blockSize)
        return part << (unitMagnitude + UInt64(block - 1))
    }

    /// The longest span that is counted there.
    static func highest(_ index: Int) -> Nanoseconds { lowest(index + 1) - 1 }
}
