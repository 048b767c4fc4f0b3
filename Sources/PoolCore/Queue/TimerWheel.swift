/// Deadlines of everything in the pool: a hierarchical timing wheel (Varghese and Lauck 1987) with intrusive lists.
///
/// Arming and disarming are O(1), which a heap is not: nearly every call arms a deadline far ahead and disarms it
/// microseconds later. A tick is 2^20 ns (about 1 ms); deadlines round up to one, so nothing fires early.
struct TimerWheel {
    static let tickShift: UInt64 = 20
    /// 64^8 ticks: more than 64 bits of nanoseconds hold, so every deadline has its place.
    private static let levels = 8
    private static let none = UInt32.max

    struct Node: BitwiseCopyable {
        var previous: UInt32 = TimerWheel.none
        var next: UInt32 = TimerWheel.none
        /// Level * 64 + slot; `.max` when not armed.
        var bucket: UInt16 = .max
        /// The tick at which it fires.
        var tick: UInt64 = 0
    }

    private var nodes: [Node]
    private var heads: [UInt32]
    private var occupied: [UInt64]
    private var current: UInt64 = 0
    private(set) var armed = 0

    init(nodes count: Int) {
        nodes = Array(repeating: Node(), count: count)
        heads = Array(repeating: Self.none, count: Self.levels * 64)
        occupied = Array(repeating: 0, count: Self.levels)
    }

    mutating func grow(to count: Int) {
        while nodes.count < count { nodes.append(Node()) }
    }

    /// Nodes from `place` on move up by `count`; what is armed stays armed. Takes time in proportion to all nodes.
    mutating func makeRoom(at place: Int, count: Int) {
        func moved(_ node: UInt32) -> UInt32 { node != Self.none && Int(node) >= place ? node + UInt32(count) : node }
        for index in nodes.indices {
            nodes[index].previous = moved(nodes[index].previous)
            nodes[index].next = moved(nodes[index].next)
        }
        for index in heads.indices { heads[index] = moved(heads[index]) }
        nodes.insert(contentsOf: repeatElement(Node(), count: count), at: place)
    }

    func isArmed(_ node: Int) -> Bool { nodes[node].bucket != .max }

    /// Arms or moves a timer; `never` disarms it.
    mutating func arm(_ node: Int, at deadline: Instant) {
        disarm(node)
        guard deadline != .never else { return }
        nodes[node].tick =
            (deadline.nanoseconds >> Self.tickShift) + (deadline.nanoseconds & ((1 << Self.tickShift) - 1) == 0 ? 0 : 1)
        insert(node)
        armed += 1
    }

    mutating func disarm(_ node: Int) {
        let bucket = nodes[node].bucket
        guard bucket != .max else { return }
        let (previous, next) = (nodes[node].previous, nodes[node].next)
        if previous == Self.none {
            heads[Int(bucket)] = next
            if next == Self.none { occupied[Int(bucket) >> 6] &= ~(1 << UInt64(bucket & 63)) }
        } else {
            nodes[Int(previous)].next = next
        }
        if next != Self.none { nodes[Int(next)].previous = previous }
        nodes[node].bucket = .max
        armed -= 1
    }

    private mutating func insert(_ node: Int) {
        let tick = max(nodes[node].tick, current)
        let level = (63 - ((tick ^ current) | 63).leadingZeroBitCount) / 6
        let slot = Int((tick >> UInt64(level * 6)) & 63)
        let bucket = level * 64 + slot
        let head = heads[bucket]
        nodes[node].bucket = UInt16(bucket)
        nodes[node].previous = Self.none
        nodes[node].next = head
        if head != Self.none { nodes[Int(head)].previous = UInt32(node) }
        heads[bucket] = UInt32(node)
        occupied[level] |= 1 << UInt64(slot)
    }

    /// The earliest occupied bucket and the tick at which it begins.
    private func earliest() -> (bucket: Int, tick: UInt64)? {
        for level in 0..<Self.levels where occupied[level] != 0 {
            let slot = occupied[level].trailingZeroBitCount
            let shift = UInt64(level * 6)
            let tick = (current >> (shift + 6)) << (shift + 6) | UInt64(slot) << shift
            return (level * 64 + slot, max(tick, current))
        }
        return nil
    }

    /// When `expire` has something to do next; may be earlier than the earliest deadline, never later.
    var nextDeadline: Instant? {
        guard let (_, tick) = earliest() else { return nil }
        return Instant(nanoseconds: tick << Self.tickShift)
    }

    /// Takes one timer that is due, if there is one. Call until `nil`.
    mutating func expire(now: Instant) -> Int? {
        let nowTick = now.nanoseconds >> Self.tickShift
        while let (bucket, tick) = earliest(), tick <= nowTick {
            current = tick
            let node = Int(heads[bucket])
            if bucket < 64 {
                disarm(node)
                return node
            }
            // The bucket begins: spread all that is in it over the finer levels. (Also where its head is due at once:
            // what stayed behind here would wait for as long as anything is armed on a finer level.)
            var next = heads[bucket]
            heads[bucket] = Self.none
            occupied[bucket >> 6] &= ~(1 << UInt64(bucket & 63))
            while next != Self.none {
                let node = Int(next)
                next = nodes[node].next
                insert(node)
            }
        }
        current = max(current, nowTick)
        return nil
    }

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&nodes, empty: Node()) { node, coder in
            coder.code(&node.previous)
            coder.code(&node.next)
            coder.code(&node.bucket)
            coder.code(&node.tick)
        }
        coder.code(&heads, empty: 0) { $1.code(&$0) }
        coder.code(&occupied, empty: 0) { $1.code(&$0) }
        coder.code(&current)
        coder.code(&armed)
    }
}
