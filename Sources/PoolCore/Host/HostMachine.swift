/// What spans pools: how many workers, and beside them how many templates, may be starting at once on this machine, so that a restart of
/// many pools, or a crash of all their workers, is no storm of interpreters. First come first served.
package struct HostMachine: ~Copyable {
    package enum Event: BitwiseCopyable, Sendable {
        /// A pool wants a process.
        case spawnWanted(pool: UInt16, WorkerID)
        /// poold's own pool wants one: it takes no place and waits for none, so that pools whose starts hang do not hold it up.
        case reservedSpawnWanted(pool: UInt16, WorkerID)
        /// A start that was granted or waits has ended: ready, failed, or given up.
        case startEnded(pool: UInt16, WorkerID)
        /// A pool wants its template. The workers that wait for it have no place, or they would keep it from those of other pools.
        case templateWanted(pool: UInt16)
        /// It is ready, has ended, or is not wanted any more.
        case templateEnded(pool: UInt16)
    }
    package enum Effect: BitwiseCopyable, Sendable, Hashable {
        case spawn(pool: UInt16, WorkerID)
        case startTemplate(pool: UInt16)
    }

    private struct Start: Hashable, BitwiseCopyable {
        var pool: UInt16
        var worker: WorkerID
    }

    private var startingAtOnce: Int
    private var waiting: [Start] = []
    private var starting: [Start] = []
    private var waitingTemplates: [UInt16] = []
    private var startingTemplates: [UInt16] = []

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
        case .templateWanted(let pool):
            waitingTemplates.append(pool)
        case .templateEnded(let pool):
            startingTemplates.removeAll { $0 == pool }
            waitingTemplates.removeAll { $0 == pool }
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
        while startingTemplates.count < startingAtOnce, !waitingTemplates.isEmpty {
            startingTemplates.append(waitingTemplates.removeFirst())
            effects.append(.startTemplate(pool: startingTemplates[startingTemplates.count - 1]))
        }
    }
}
