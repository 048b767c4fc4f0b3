import CPoold
import Glibc

/// The page that a worker shares with poold (PROTOCOL.md, section 7): what has begun, what runs, what is revoked.
/// Word 1 is `started`, word 2 `running`, word 64 + n mod 64 revokes call n.
enum ExecutionPage {
    static let byteCount = 4096
    static let magic: UInt64 = 0x3147_4150_444C_4F50

    /// Maps a page and marks it. The owner unmaps it.
    static func map(_ descriptor: Int32) -> UnsafeMutablePointer<UInt64>? {
        guard let memory = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), memory != MAP_FAILED else { return nil }
        let words = memory.bindMemory(to: UInt64.self, capacity: byteCount / 8)
        cpoold_store(words, magic)
        return words
    }
}
