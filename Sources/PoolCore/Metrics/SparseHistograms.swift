/// The histograms of a finished slice, of all methods of a pool: only the buckets that hold something.
struct SparseHistograms: Sendable {
    /// Bucket above, count below; a larger count takes several entries.
    private static let countBits: UInt32 = 19
    private static let largestCount: UInt64 = 1 << 19 - 1

    private var entries: [UInt32] = []
    /// Where each kind ends.
    private var ends: (UInt32, UInt32, UInt32) = (0, 0, 0)

    var isEmpty: Bool { entries.isEmpty }

    /// Kinds come in their order, blocks too.
    mutating func append(_ kind: SpanKind, block: Int, _ counts: [UInt64]) {
        for (offset, count) in counts.enumerated() where count > 0 {
            let bucket = UInt32(block << Int(HistogramLayout.halfMagnitude) + offset)
            var left = count
            while left > 0 {
                let part = min(left, Self.largestCount)
                entries.append(bucket << Self.countBits | UInt32(part))
                left -= part
            }
        }
        let end = UInt32(entries.count)
        switch kind {
        case .wait: ends = (end, end, end)
        case .service: ends = (ends.0, end, end)
        case .latency: ends.2 = end
        }
    }

    func add(_ kind: SpanKind, to merged: inout MergedHistogram) {
        let range: Range<UInt32>
        switch kind {
        case .wait: range = 0..<ends.0
        case .service: range = ends.0..<ends.1
        case .latency: range = ends.1..<ends.2
        }
        for at in range { merged.add(Int(entries[Int(at)] >> Self.countBits), UInt64(entries[Int(at)]) & Self.largestCount) }
    }

    mutating func code(_ coder: inout StateCoder) {
        coder.codeCompact(&ends.0)
        coder.codeCompact(&ends.1)
        coder.codeCompact(&ends.2)
        coder.code(&entries, empty: 0) { $1.code(&$0) }
        guard coder.isReading else { return }
        var isSound = ends.0 <= ends.1 && ends.1 <= ends.2 && Int(ends.2) == entries.count
        for entry in entries where Int(entry >> Self.countBits) >= HistogramLayout.buckets { isSound = false }
        if !isSound {
            coder.fail()
            self = SparseHistograms()
        }
    }
}

extension StateCoder {
    /// Seven bits to a byte: most numbers of the metrics are small.
    mutating func codeCompact<T: FixedWidthInteger & UnsignedInteger>(_ value: inout T) {
        var rest = UInt64(truncatingIfNeeded: value)
        if !isReading {
            while rest > 127 {
                var byte = UInt8(truncatingIfNeeded: rest) | 128
                code(&byte)
                rest >>= 7
            }
            var byte = UInt8(rest)
            return code(&byte)
        }
        rest = 0
        var shift: UInt64 = 0
        var byte: UInt8 = 128
        while byte & 128 != 0 {
            byte = 0
            guard shift < 64 else { return fail() }
            code(&byte)
            rest |= UInt64(byte & 127) << shift
            shift += 7
        }
        value = T(truncatingIfNeeded: rest)
    }

    /// What is not 0 of so many numbers.
    mutating func codeSparse<T: FixedWidthInteger & UnsignedInteger>(_ size: Int, _ get: (Int) -> T, _ set: (Int, T) -> Void) {
        var filled: UInt32 = 0
        if !isReading { for at in 0..<size where get(at) != 0 { filled += 1 } }
        codeCompact(&filled)
        guard isReading else {
            for at in 0..<size where get(at) != 0 {
                var (place, value) = (UInt32(at), get(at))
                codeCompact(&place)
                codeCompact(&value)
            }
            return
        }
        for _ in 0..<min(Int(filled), size) {
            var (place, value) = (UInt32(0), T(0))
            codeCompact(&place)
            codeCompact(&value)
            guard Int(place) < size else { return fail() }
            set(Int(place), value)
        }
        if Int(filled) > size { fail() }
    }
}
