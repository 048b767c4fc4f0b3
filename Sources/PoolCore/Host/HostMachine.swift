/// What spans pools: how many workers may be starting at once on this machine.
package struct HostMachine: ~Copyable {
    package enum Event: BitwiseCopyable, Sendable {
        /// A pool wants a process.
        case spawnWanted(pool: UInt16, WorkerID)
        /// A start that was granted has ended: ready, failed, or given up.
        case startEnded(pool: UInt16, WorkerID)
    }
    package enum Effect: BitwiseCopyable, Sendable, Hashable {
        case spawn(pool: UInt16, WorkerID)
    }
    package init(startingAtOnce: Int) {}
    package mutating func handle(_ event: Event, into effects: inout [Effect]) {}
}
