/// One pool as a deterministic state machine: no I/O, no clock, no global randomness, no logging.
package struct PoolMachine: ~Copyable {
    package private(set) var policy: PoolPolicy

    package init(policy: PoolPolicy, seed: UInt64) {
        self.policy = policy
    }

    /// Takes one event to its end and appends what is to be done.
    package mutating func handle(_ event: Event, now: Instant, into effects: inout EffectBuffer) {
    }

    /// When `timer` is due; `nil`: nothing waits.
    package var nextDeadline: Instant? { nil }

    /// Bodies of arriving calls must be hashed: something is in quarantine.
    package var wantsBodyHash: Bool { false }

    /// The whole state as bytes. `init(encoded:)` reads them back; unknown versions and damaged bytes are errors.
    package func encoded() -> [UInt8] { [] }

    package init(encoded bytes: [UInt8]) throws(StateCodingError) {
        throw .damaged(offset: 0)
    }
}

/// Why an encoded state could not be read.
package enum StateCodingError: Error, Equatable {
    case unknownVersion(UInt32)
    case damaged(offset: Int)
}

extension PoolMachine {
    package func status(now: Instant) -> PoolStatus { PoolStatus() }
}
