/// Writes or reads the machine's state, field by field, with one function for both directions: so the two cannot differ.
///
/// Layout: fixed-width little-endian integers in the order of the `code` calls, then an FNV-1a 64 of all before it,
/// so that damaged bytes are refused before anything is built from them.
struct StateCoder {
    private(set) var bytes: [UInt8]
    private var offset = 0
    let isReading: Bool
    /// Where reading went wrong, if it did.
    private(set) var damagedAt: Int?

    init() {
        bytes = []
        isReading = false
    }

    init(reading bytes: [UInt8]) throws(StateCodingError) {
        self.bytes = bytes
        isReading = true
        guard bytes.count >= 8 else { throw .damaged(offset: 0) }
        var sum: UInt64 = 0
        for i in 0..<8 { sum |= UInt64(bytes[bytes.count - 8 + i]) << (8 * UInt64(i)) }
        guard sum == Self.checksum(bytes[0..<(bytes.count - 8)]) else { throw .damaged(offset: bytes.count - 8) }
        self.bytes.removeLast(8)
    }

    /// Bytes with their checksum.
    consuming func finished() -> [UInt8] {
        let sum = Self.checksum(bytes[...])
        var out = bytes
        for i in 0..<8 { out.append(UInt8(truncatingIfNeeded: sum >> (8 * UInt64(i)))) }
        return out
    }

    func check() throws(StateCodingError) {
        if let damagedAt { throw .damaged(offset: damagedAt) }
        if isReading && offset != bytes.count { throw .damaged(offset: offset) }
    }

    private static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return hash
    }

    mutating func fail() { if damagedAt == nil { damagedAt = offset } }

    mutating func code<T: FixedWidthInteger>(_ value: inout T) {
        let width = MemoryLayout<T>.size
        if isReading {
            guard damagedAt == nil, offset + width <= bytes.count else { return fail() }
            var raw: T = 0
            for i in 0..<width { raw |= T(truncatingIfNeeded: bytes[offset + i]) << T(8 * i) }
            value = raw
            offset += width
        } else {
            for i in 0..<width { bytes.append(UInt8(truncatingIfNeeded: value >> T(8 * i))) }
        }
    }

    mutating func code(_ value: inout Bool) {
        var raw: UInt8 = value ? 1 : 0
        code(&raw)
        if isReading { value = raw == 1 }
    }

    mutating func code<E: RawRepresentable>(_ value: inout E) where E.RawValue == UInt8 {
        var raw = value.rawValue
        code(&raw)
        guard isReading else { return }
        if let known = E(rawValue: raw) { value = known } else { fail() }
    }

    mutating func code(_ value: inout Instant) { code(&value.nanoseconds) }
    mutating func code(_ value: inout CallID) {
        code(&value.index)
        code(&value.generation)
    }

    mutating func code<T>(_ values: inout [T], empty: T, _ element: (inout T, inout StateCoder) -> Void) {
        var count = UInt32(values.count)
        code(&count)
        if isReading {
            guard damagedAt == nil, Int(count) <= bytes.count - offset else { return fail() }
            values = Array(repeating: empty, count: Int(count))
        }
        for i in 0..<Int(count) { element(&values[i], &self) }
    }
}

/// Why an encoded state could not be read.
package enum StateCodingError: Error, Equatable {
    case unknownVersion(UInt32)
    case damaged(offset: Int)
}
