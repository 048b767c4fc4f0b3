/// What spans pools: how many workers, and beside them how many templates, may be starting at once on this machine, so that a restart of
/// many pools, or a crash of all their workers, is no storm of interpreters. First come first served.
package struct HostMachine: ~Copyable {
    package enum Event: BitwiseCopyable, Sendable {
        /// A pool wants a process. After `patience` its start may go on, but keeps nobody waiting: some that hang do not hold up the others.
        case spawnWanted(pool: UInt16, WorkerID, patience: Nanoseconds)
        /// poold's own pool wants one: it takes no place and waits for none, so that pools whose starts hang do not hold it up.
        case reservedSpawnWanted(pool: UInt16, WorkerID)
        /// A start that was granted or waits has ended: ready, failed, or given up.
        case startEnded(pool: UInt16, WorkerID)
        /// A pool wants its template. The workers that wait for it have no place, or they would keep it from those of other pools.
        case templateWanted(pool: UInt16, patience: Nanoseconds)
        /// It is ready, has ended, or is not wanted any more.
        case templateEnded(pool: UInt16)
        /// `nextDeadline` has come.
        case timer
    }
    package enum Effect: BitwiseCopyable, Sendable, Hashable {
        case spawn(pool: UInt16, WorkerID)
        case startTemplate(pool: UInt16)
    }

    private struct Start: BitwiseCopyable {
        var effect: Effect
        var patience: Nanoseconds
        var until = Instant.never
    }

    /// Starts of one kind.
    private struct Line {
        var waiting: [Start] = []
        var starting: [Start] = []

        mutating func end(_ effect: Effect) {
            starting.removeAll { $0.effect == effect }
            waiting.removeAll { $0.effect == effect }
        }

        mutating func grant(_ limit: Int, _ now: Instant, _ effects: inout [Effect]) {
            starting.removeAll { $0.until <= now }
            while starting.count < limit, !waiting.isEmpty {
                var start = waiting.removeFirst()
                start.until = now + start.patience
                starting.append(start)
                effects.append(start.effect)
            }
        }

        /// Nobody needs to know of a place that nobody waits for.
        var nextDeadline: Instant { waiting.isEmpty ? .never : starting.map(\.until).min() ?? .never }
    }

    private var startingAtOnce: Int
    private var workers = Line()
    private var templates = Line()

    package init(startingAtOnce: Int) { self.startingAtOnce = max(1, startingAtOnce) }

    package mutating func handle(_ event: Event, now: Instant, into effects: inout [Effect]) {
        switch event {
        case .spawnWanted(let pool, let worker, let patience):
            workers.waiting.append(Start(effect: .spawn(pool: pool, worker), patience: patience))
        case .reservedSpawnWanted(let pool, let worker):
            effects.append(.spawn(pool: pool, worker))
        case .startEnded(let pool, let worker):
            workers.end(.spawn(pool: pool, worker))
        case .templateWanted(let pool, let patience):
            templates.waiting.append(Start(effect: .startTemplate(pool: pool), patience: patience))
        case .templateEnded(let pool):
            templates.end(.startTemplate(pool: pool))
        case .timer: break
        }
        grant(now, &effects)
    }

    /// Another limit, at least 1; who waits may begin at once.
    package mutating func allow(startingAtOnce limit: Int, now: Instant, into effects: inout [Effect]) {
        startingAtOnce = max(1, limit)
        grant(now, &effects)
    }

    private mutating func grant(_ now: Instant, _ effects: inout [Effect]) {
        workers.grant(startingAtOnce, now, &effects)
        templates.grant(startingAtOnce, now, &effects)
    }

    package var nextDeadline: Instant { min(workers.nextDeadline, templates.nextDeadline) }
}
