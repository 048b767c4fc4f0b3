import Glibc

/// A piece of raw memory with one owner.
struct Block: BitwiseCopyable {
    var pointer: UnsafeMutableRawPointer?
    var capacity = 0
}

/// Raw blocks in size classes, kept in free lists: the path of a call takes and gives back without malloc.
struct BlockPool: ~Copyable {
    private static let smallest = 256
    private static let classes = 5
    /// Bytes kept in each free list; more goes back to malloc.
    private static let keptBytes = 4 << 20

    private var heads: (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?, UnsafeMutableRawPointer?, UnsafeMutableRawPointer?, UnsafeMutableRawPointer?) =
        (nil, nil, nil, nil, nil)
    private var counts: (Int, Int, Int, Int, Int) = (0, 0, 0, 0, 0)

    /// 256 B, 1, 4, 16, 64 KiB; `nil`: too large for a class.
    @inline(__always) private static func index(of size: Int) -> Int? {
        if size <= 256 { return 0 }
        if size <= 1024 { return 1 }
        if size <= 4096 { return 2 }
        if size <= 16384 { return 3 }
        return size <= 65536 ? 4 : nil
    }

    mutating func allocate(_ size: Int) -> Block {
        guard let index = Self.index(of: size) else {
            return Block(pointer: malloc(size)!, capacity: size)
        }
        let capacity = Self.smallest << (2 * index)
        return withUnsafeMutableBytes(of: &heads) { heads in
            let slot = heads.baseAddress!.assumingMemoryBound(to: UnsafeMutableRawPointer?.self) + index
            if let head = slot.pointee {
                slot.pointee = head.load(as: UnsafeMutableRawPointer?.self)
                withUnsafeMutableBytes(of: &counts) { $0.assumingMemoryBound(to: Int.self)[index] -= 1 }
                return Block(pointer: head, capacity: capacity)
            }
            return Block(pointer: malloc(capacity)!, capacity: capacity)
        }
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
}
