/// What spans pools: how many workers may be starting at once on this machine, so that a restart of many
/// pools, or a crash of all their workers, is no storm of interpreters. First come first served.
package struct HostMachine: ~Copyable {
    package enum Event: BitwiseCopyable, Sendable {
        /// A pool wants a process.
        case spawnWanted(pool: UInt16, WorkerID)
        /// poold's own pool wants one: it takes no place and waits for none, so that pools whose starts hang do not hold it up.
        case reservedSpawnWanted(pool: UInt16, WorkerID)
        /// A start that was granted or waits has ended: ready, failed, or given up.
        case startEnded(pool: UInt16, WorkerID)
    }
    package enum Effect: BitwiseCopyable, Sendable, Hashable {
        case spawn(pool: UInt16, WorkerID)
    }

    private struct Start: Hashable, BitwiseCopyable {
        var pool: UInt16
        var worker: WorkerID
    }

    private var startingAtOnce: Int
    private var waiting: [Start] = []
    private var starting: [Start] = []

    package init(startingAtOnce: Int) { self.startingAtOnce = max(1, startingAtOnce) }

    package mutating func handle(_ event: Event, into effects: inout [Effect]) {
        switch event {
        case .spawnWanted(let pool, let worker):
            waiting.append(Start(pool: pool, worker: worker))
        case .reservedSpawnWanted(let pool, let worker):
            effects.append(.spawn(pool: pool, worker))
        case .startEnded(let pool, let worker):
            let start = Start(pool: pool, worker: worker)
            starting.removeAll { $0 == start }
            waiting.removeAll { $0 == start }
        }
        grant(&effects)
    }

    /// Another limit, at least 1; who waits may begin at once.
    package mutating func allow(startingAtOnce limit: Int, into effects: inout [Effect]) {
        startingAtOnce = max(1, limit)
        grant(&effects)
    }

    private mutating func grant(_ effects: inout [Effect]) {
        while starting.count < startingAtOnce, !waiting.isEmpty {
            let start = waiting.removeFirst()
            starting.append(start)
            effects.append(.spawn(pool: start.pool, start.worker))
        }
    }
}
