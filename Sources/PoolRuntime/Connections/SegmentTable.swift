import Glibc

/// A part of a connection's output behind its buffer: a large body, or small frames that follow one.
struct Segment: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
        /// Small frames; more may be appended.
        case frames
        /// The block goes when it is written.
        case owned
        /// A call holds the block too.
        case shared
    }
    var block = Block()
    var start = 0
    var end = 0
    var kind = Kind.frames
    var next = SegmentTable.none
}

/// The segments of all connections, by index; grows on demand. Bounded by the calls in flight: each adds at most two.
struct SegmentTable: ~Copyable {
    static let none: Int32 = -1
    private var segments: UnsafeMutablePointer<Segment>
    private var capacity = 64
    private var used = 0
    private var firstFree = SegmentTable.none

    init() { segments = UnsafeMutablePointer<Segment>.allocate(capacity: capacity) }

    subscript(index: Int32) -> Segment {
        get { segments[Int(index)] }
        nonmutating set { segments[Int(index)] = newValue }
    }

    mutating func add(_ segment: Segment) -> Int32 {
        if firstFree != Self.none {
            let index = firstFree
            firstFree = segments[Int(index)].next
            segments[Int(index)] = segment
            return index
        }
        if used == capacity {
            let larger = UnsafeMutablePointer<Segment>.allocate(capacity: 2 * capacity)
            larger.moveInitialize(from: segments, count: used)
            segments.deallocate()
            segments = larger
            capacity *= 2
        }
        (segments + used).initialize(to: segment)
        used += 1
        return Int32(used - 1)
    }

    mutating func remove(_ index: Int32) {
        segments[Int(index)].next = firstFree
        firstFree = index
    }
}
