import Glibc

/// A piece of raw memory with one owner, unless it says otherwise.
struct Block: BitwiseCopyable {
    var pointer: UnsafeMutableRawPointer?
    var capacity = 0

    /// Whether the bytes lie in this block.
    func holds(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let pointer, let base = bytes.baseAddress else { return false }
        return base >= UnsafeRawPointer(pointer) && base + bytes.count <= UnsafeRawPointer(pointer) + capacity
    }
}

/// Raw blocks in size classes, kept in free lists: the path of a call takes and gives back without malloc.
struct BlockPool: ~Copyable {
    private static let smallest = 256
    /// Larger ones come from malloc and go back to it.
    static let largestClass = 65_536
    /// Bytes kept in each free list; more goes back to malloc.
    private static let keptBytes = 4 << 20

    private typealias Link = UnsafeMutableRawPointer?
    private var heads: (Link, Link, Link, Link, Link) = (nil, nil, nil, nil, nil)
    private var counts: (Int, Int, Int, Int, Int) = (0, 0, 0, 0, 0)
    /// The least that lay in each list since it was last trimmed: what nobody needed.
    private var unused: (Int, Int, Int, Int, Int) = (0, 0, 0, 0, 0)

    /// 256 B, 1, 4, 16, 64 KiB; `nil`: too large for a class.
    @inline(__always) private static func index(of size: Int) -> Int? {
        if size <= 256 { return 0 }
        if size <= 1024 { return 1 }
        if size <= 4096 { return 2 }
        if size <= 16384 { return 3 }
        return size <= largestClass ? 4 : nil
    }

    /// At least `size` bytes. Without memory for a block of a class the process ends; use `allocateLarge` for sizes that a peer chose.
    mutating func allocate(_ size: Int) -> Block {
        guard let index = Self.index(of: size) else {
            guard let pointer = malloc(size) else { fatalError("out of memory: \(size) bytes") }
            return Block(pointer: pointer, capacity: size)
        }
        let capacity = Self.smallest << (2 * index)
        return withUnsafeMutableBytes(of: &heads) { heads in
            let slot = heads.baseAddress!.assumingMemoryBound(to: UnsafeMutableRawPointer?.self) + index
            if let head = slot.pointee {
                slot.pointee = head.load(as: UnsafeMutableRawPointer?.self)
                let left = withUnsafeMutableBytes(of: &counts) { counts -> Int in
                    let counts = counts.assumingMemoryBound(to: Int.self)
                    counts[index] -= 1
                    return counts[index]
                }
                withUnsafeMutableBytes(of: &unused) { unused in
                    let unused = unused.assumingMemoryBound(to: Int.self)
                    if left < unused[index] { unused[index] = left }
                }
                return Block(pointer: head, capacity: capacity)
            }
            guard let pointer = malloc(capacity) else { fatalError("out of memory: \(capacity) bytes") }
            return Block(pointer: pointer, capacity: capacity)
        }
    }

    /// The same, but `nil` where there is no memory.
    mutating func allocateLarge(_ size: Int) -> Block? {
        if size <= Self.largestClass { return allocate(size) }
        guard let pointer = malloc(size) else { return nil }
        return Block(pointer: pointer, capacity: size)
    }

    mutating func release(_ block: Block) {
        guard let pointer = block.pointer else { return }
        guard let index = Self.index(of: block.capacity), block.capacity == Self.smallest << (2 * index) else {
            free(pointer)
            return
        }
        let kept = withUnsafeMutableBytes(of: &counts) { counts -> Bool in
            let counts = counts.assumingMemoryBound(to: Int.self)
            guard counts[index] * block.capacity < Self.keptBytes else { return false }
            counts[index] += 1
            return true
        }
        guard kept else {
            free(pointer)
            return
        }
        withUnsafeMutableBytes(of: &heads) { heads in
            let slot = heads.baseAddress!.assumingMemoryBound(to: UnsafeMutableRawPointer?.self) + index
            pointer.storeBytes(of: slot.pointee, as: UnsafeMutableRawPointer?.self)
            slot.pointee = pointer
        }
    }

    /// Gives back what lay in the lists unused since the last time: after a burst the lists shrink again.
    mutating func trim() {
        withUnsafeMutableBytes(of: &heads) { heads in
            withUnsafeMutableBytes(of: &counts) { counts in
                withUnsafeMutableBytes(of: &unused) { unused in
                    let heads = heads.assumingMemoryBound(to: UnsafeMutableRawPointer?.self)
                    let counts = counts.assumingMemoryBound(to: Int.self)
                    let unused = unused.assumingMemoryBound(to: Int.self)
                    for index in heads.indices {
                        while unused[index] > 0, let head = heads[index] {
                            heads[index] = head.load(as: UnsafeMutableRawPointer?.self)
                            free(head)
                            counts[index] -= 1
                            unused[index] -= 1
                        }
                        unused[index] = counts[index]
                    }
                }
            }
        }
    }

    // MARK: - Blocks that a call and a socket's queue hold together

    /// The holders are counted in the first 8 bytes, where the frame's header was.
    func startSharing(_ block: Block) { block.pointer!.storeBytes(of: 1, as: Int.self) }

    func share(_ block: Block) { block.pointer!.storeBytes(of: block.pointer!.load(as: Int.self) + 1, as: Int.self) }

    mutating func releaseShared(_ block: Block) {
        guard let pointer = block.pointer else { return }
        let holders = pointer.load(as: Int.self) - 1
        pointer.storeBytes(of: holders, as: Int.self)
        if holders == 0 { release(block) }
    }
}
