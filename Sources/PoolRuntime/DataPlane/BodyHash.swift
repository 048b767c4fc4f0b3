/// What a body is known by in the quarantine: 32 bytes a step, for bodies have up to a gigabyte and the loop waits.
///
/// The multiplication of 64 by 64 bits, folded, is the step of wyhash (Wang Yi). The keys are drawn at the start: a caller who
/// knows another's body could otherwise make one of the same hash and have both refused.
enum BodyHash {
    private static let keys = (
        UInt64.random(in: .min ... .max), UInt64.random(in: .min ... .max), UInt64.random(in: .min ... .max), UInt64.random(in: .min ... .max)
    )

    /// Stable while this process runs; never 0, which is kept for "not hashed".
    static func of(method: UInt16, _ body: UnsafeRawBufferPointer) -> UInt64 {
        let (first, second, third, fourth) = keys
        var left = first ^ UInt64(method)
        var right = second ^ UInt64(body.count)
        let count = body.count
        var at = 0
        if let base = body.baseAddress {
            while count - at >= 32 {
                left = fold(left ^ word(base + at), third ^ word(base + at + 8))
                right = fold(right ^ word(base + at + 16), fourth ^ word(base + at + 24))
                at += 32
            }
            while count - at >= 8 {
                left = fold(left ^ word(base + at), third)
                at += 8
            }
        }
        var rest: UInt64 = 0
        while at < count {
            rest = rest << 8 | UInt64(body[at])
            at += 1
        }
        let hash = fold(fold(left ^ rest, fourth) ^ third, right ^ first)
        return hash == 0 ? 1 : hash
    }

    @inline(__always) private static func word(_ pointer: UnsafeRawPointer) -> UInt64 { pointer.loadUnaligned(as: UInt64.self) }

    @inline(__always) private static func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
        let product = a.multipliedFullWidth(by: b)
        return product.high ^ product.low
    }
}
