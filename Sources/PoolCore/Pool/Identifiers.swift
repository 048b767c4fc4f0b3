/// A point on CLOCK_MONOTONIC in nanoseconds. The core never reads a clock: `now` comes in with each event.
package struct Instant: Comparable, Hashable, BitwiseCopyable, Sendable {
    package var nanoseconds: UInt64
    @inlinable package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
    package static let zero = Instant(nanoseconds: 0)
    /// Later than anything that happens: "no deadline".
    package static let never = Instant(nanoseconds: .max)
    @inlinable package static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
    /// Saturates at `never`.
    @inlinable package static func + (a: Instant, span: Nanoseconds) -> Instant {
        let (sum, overflow) = a.nanoseconds.addingReportingOverflow(span)
        return Instant(nanoseconds: overflow ? .max : sum)
    }
    /// 0 when `earlier` is not earlier.
    @inlinable package func since(_ earlier: Instant) -> Nanoseconds {
        nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0
    }
}

/// A span of time in nanoseconds.
package typealias Nanoseconds = UInt64

/// A call in its pool's table. The generation makes a late mention of an ended call harmless.
package struct CallID: Hashable, BitwiseCopyable, Sendable {
    package var index: UInt32
    package var generation: UInt32
    @inlinable package init(index: UInt32, generation: UInt32) {
        self.index = index
        self.generation = generation
    }
    package static let none = CallID(index: .max, generation: 0)
}

/// A worker: a slot of the pool and how many workers have lived in it. Never a pid.
package struct WorkerID: Hashable, BitwiseCopyable, Sendable {
    package var slot: UInt16
    package var generation: UInt32
    @inlinable package init(slot: UInt16, generation: UInt32) {
        self.slot = slot
        self.generation = generation
    }
    package static let none = WorkerID(slot: .max, generation: 0)
}

/// Whom calls are accounted to: a user, or a tenant beneath a trusted one. Dense, given by the shell,
/// below `PoolPolicy.maximumIdentities`.
package struct IdentityID: Hashable, BitwiseCopyable, Sendable {
    package var index: UInt16
    @inlinable package init(index: UInt16) { self.index = index }
}

/// A method of the pool, dense from 0, below `PoolPolicy.maximumMethods`; the shell keeps its name and each worker's own number.
package struct MethodID: Hashable, BitwiseCopyable, Sendable {
    package var index: UInt16
    @inlinable package init(index: UInt16) { self.index = index }
    /// A method of the worker library itself (`poold.warm`): its times tell nothing of the pool's methods and are not kept.
    package static let builtIn = MethodID(index: .max)
}

/// The class of a call: a higher one is served first, a lower one is not starved.
package enum Priority: UInt8, CaseIterable, BitwiseCopyable, Sendable {
    case normal = 0
    case high = 1
    case low = 2
}
