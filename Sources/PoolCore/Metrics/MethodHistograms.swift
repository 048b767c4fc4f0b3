/// The histograms of each method of a pool: what fell into the slice at hand, and what was before it.
///
/// Blocks of 128 buckets, made when something first falls into them, in two arrays for all methods together: a record on the path of
/// a call is an index, a look into the table and one addition. A method with typical times has 15 blocks, 23 KiB; one that was never
/// called has none. (A dense histogram of the same range takes 34 KiB for each kind, twice.)
struct MethodHistograms {
    /// Table entry: number of the block, above it whether something fell there in this slice. 0: no block.
    private static let touched: UInt32 = 1 << 31
    private static let perMethod = SpanKind.count * HistogramLayout.blocks

    /// By method, kind and block of the layout.
    private var table: [UInt32] = []
    /// Table index of each block; the first is number 1.
    private var keys: [UInt32] = []
    /// Table indices of the blocks with something in this slice.
    private var touchedKeys: [UInt32] = []
    private var current: [UInt32] = []
    private var before: [UInt64] = []

    var methods: Int { table.count / Self.perMethod }

    @inline(__always) mutating func record(_ method: UInt16, _ kind: SpanKind, _ span: Nanoseconds) {
        let index = HistogramLayout.index(of: span)
        let key = (Int(method) * SpanKind.count + kind.rawValue) * HistogramLayout.blocks + index >> Int(HistogramLayout.halfMagnitude)
        var entry = key < table.count ? table[key] : 0
        if entry & Self.touched == 0 { entry = touch(key) }
        current[Int(entry & ~Self.touched - 1) << Int(HistogramLayout.halfMagnitude) + index & (HistogramLayout.blockSize - 1)] &+= 1
    }

    @inline(never) private mutating func touch(_ key: Int) -> UInt32 {
        if key >= table.count {
            let method = key / Self.perMethod
            table.append(contentsOf: repeatElement(0, count: (method + 1) * Self.perMethod - table.count))
        }
        if table[key] == 0 {
            keys.append(UInt32(key))
            table[key] = UInt32(keys.count)
            current.append(contentsOf: repeatElement(0, count: HistogramLayout.blockSize))
            before.append(contentsOf: repeatElement(0, count: HistogramLayout.blockSize))
        }
        table[key] |= Self.touched
        touchedKeys.append(UInt32(key))
        return table[key]
    }

    private func start(_ key: Int) -> Int { Int(table[key] & ~Self.touched - 1) << Int(HistogramLayout.halfMagnitude) }

    /// Kind and block of the layout.
    private static func place(_ key: UInt32) -> Int { Int(key) % perMethod }

    // MARK: - The end of a slice

    /// What fell into this slice, of all methods together; the next one begins empty.
    mutating func takeSlice() -> SparseHistograms {
        var sparse = SparseHistograms()
        guard !touchedKeys.isEmpty else { return sparse }
        touchedKeys.sort { (Self.place($0), $0) < (Self.place($1), $1) }
        var sums = [UInt64](repeating: 0, count: HistogramLayout.blockSize)
        var at = 0
        while at < touchedKeys.count {
            let place = Self.place(touchedKeys[at])
            var isFirst = true
            while at < touchedKeys.count, Self.place(touchedKeys[at]) == place {
                let key = Int(touchedKeys[at])
                let start = start(key)
                for offset in 0..<HistogramLayout.blockSize {
                    let count = UInt64(current[start + offset])
                    before[start + offset] &+= count
                    sums[offset] = isFirst ? count : sums[offset] &+ count
                    current[start + offset] = 0
                }
                table[key] &= ~Self.touched
                isFirst = false
                at += 1
            }
            sparse.append(SpanKind(rawValue: place / HistogramLayout.blocks)!, block: place % HistogramLayout.blocks, sums)
        }
        touchedKeys.removeAll(keepingCapacity: true)
        return sparse
    }

    // MARK: - Reading

    /// Everything of one method.
    func add(_ method: Int, _ kind: SpanKind, to merged: inout MergedHistogram) {
        guard method < methods else { return }
        for block in 0..<HistogramLayout.blocks {
            let key = (method * SpanKind.count + kind.rawValue) * HistogramLayout.blocks + block
            guard table[key] != 0 else { continue }
            let start = start(key)
            for offset in 0..<HistogramLayout.blockSize {
                let count = before[start + offset] &+ UInt64(current[start + offset])
                if count > 0 { merged.add(block << Int(HistogramLayout.halfMagnitude) + offset, count) }
            }
        }
    }

    /// The slice at hand, of all methods.
    func addCurrent(_ kind: SpanKind, to merged: inout MergedHistogram) {
        for key in touchedKeys {
            let place = Self.place(key)
            guard place / HistogramLayout.blocks == kind.rawValue else { continue }
            let (start, block) = (start(Int(key)), place % HistogramLayout.blocks)
            for offset in 0..<HistogramLayout.blockSize where current[start + offset] > 0 {
                merged.add(block << Int(HistogramLayout.halfMagnitude) + offset, UInt64(current[start + offset]))
            }
        }
    }

    // MARK: - Encoding

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&keys, empty: 0) { $1.code(&$0) }
        if coder.isReading { rebuild(&coder) }
        coder.code(&touchedKeys, empty: 0) { $1.code(&$0) }
        if coder.isReading { markTouched(&coder) }
        for block in keys.indices {
            let start = block << Int(HistogramLayout.halfMagnitude)
            coder.codeSparse(HistogramLayout.blockSize, { current[start + $0] }, { current[start + $0] = $1 })
            coder.codeSparse(HistogramLayout.blockSize, { before[start + $0] }, { before[start + $0] = $1 })
        }
    }

    private mutating func rebuild(_ coder: inout StateCoder) {
        let bound = UInt32(PoolPolicy.maximumMethods * Self.perMethod)
        table = []
        for (block, key) in keys.enumerated() {
            guard key < bound else { return abandon(&coder) }
            let method = Int(key) / Self.perMethod
            if (method + 1) * Self.perMethod > table.count {
                table.append(contentsOf: repeatElement(0, count: (method + 1) * Self.perMethod - table.count))
            }
            guard table[Int(key)] == 0 else { return abandon(&coder) }
            table[Int(key)] = UInt32(block + 1)
        }
        current = Array(repeating: 0, count: keys.count << Int(HistogramLayout.halfMagnitude))
        before = Array(repeating: 0, count: current.count)
    }

    private mutating func markTouched(_ coder: inout StateCoder) {
        for key in touchedKeys {
            guard Int(key) < table.count, table[Int(key)] != 0, table[Int(key)] & Self.touched == 0 else { return abandon(&coder) }
            table[Int(key)] |= Self.touched
        }
    }

    private mutating func abandon(_ coder: inout StateCoder) {
        coder.fail()
        self = MethodHistograms()
    }
}
