import PoolCore

/// Damages an encoded state. What comes of it must be an error, or a state, but never a trap.
struct Saboteur {
    var random: SeededRandom

    /// What went wrong, if something did.
    mutating func attack(_ bytes: [UInt8]) -> String? {
        var damaged = bytes
        switch random.below(3) {
        case 0:
            damaged[random.below(bytes.count)] ^= 1 << UInt8(random.below(8))
            return reads(damaged) ? "a flipped bit was not noticed" : nil
        case 1:
            damaged.removeLast(1 + random.below(bytes.count))
            return reads(damaged) ? "truncated bytes were taken for a state" : nil
        default:
            // Damaged before it was summed up: what is read must be bounded, if not true.
            damaged.removeLast(8)
            for _ in 0...random.below(4) { damaged[random.below(damaged.count)] = UInt8(truncatingIfNeeded: random.next()) }
            if random.chance(20) { damaged.removeLast(random.below(damaged.count)) }
            _ = reads(Self.summed(damaged))
            return nil
        }
    }

    private func reads(_ bytes: [UInt8]) -> Bool {
        do throws(StateCodingError) {
            let machine = try PoolMachine.decoded(bytes)
            _ = machine.policy
            return true
        } catch { return false }
    }

    private static func summed(_ bytes: [UInt8]) -> [UInt8] {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return bytes + (0..<8).map { UInt8(truncatingIfNeeded: hash >> (8 * UInt64($0))) }
    }
}
