import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

extension Shell {
    // MARK: - Birth

    /// A worker waits for its pool's template, then for a place among those that are starting.
    mutating func spawnWanted(_ pool: Int, _ worker: WorkerID) {
        if pools[pool].template.state == .starting { return pools[pool].template.waiting.append(worker) }
        let number = UInt16(pool)
        tellHost(
            pools[pool].configuration.isReserved
                ? .reservedSpawnWanted(pool: number, worker) : .spawnWanted(pool: number, worker, patience: startPatience(pool)))
    }

    /// How long a start of this pool keeps others waiting. Half of what it may take: a slow import is mostly no hanging one, and as many at
    /// once as the machine can bear is what gets all of them through.
    func startPatience(_ pool: Int) -> UInt64 { pools[pool].configuration.policy.startTimeout / 2 }

    /// Carries out what the host machine grants then.
    mutating func tellHost(_ event: HostMachine.Event) {
        host.handle(event, now: Instant(nanoseconds: now), into: &hostEffects)
        spawnGranted()
    }

    /// Carries out what the host machine has granted.
    mutating func spawnGranted() {
        // A start that fails at once grants the next one: in this loop, not one within the other.
        guard !isGranting else { return }
        isGranting = true
        while !hostEffects.isEmpty {
            switch hostEffects.removeFirst() {
            case .spawn(let pool, let worker): spawn(Int(pool), worker)
            case .startTemplate(let pool): launchTemplate(Int(pool))
            }
        }
        isGranting = false
        hostDeadline = host.nextDeadline.nanoseconds
    }

    mutating func startEnded(_ pool: Int, _ worker: WorkerID) { tellHost(.startEnded(pool: UInt16(pool), worker)) }

    private mutating func spawn(_ pool: Int, _ worker: WorkerID) {
        if pools[pool].template.state == .starting {
            pools[pool].template.waiting.append(worker)
            return startEnded(pool, worker)
        }
        let entry = pools[pool].workers + Int(worker.slot)
        guard makeDescriptors(entry) else {
            let error = errno
            journal.error(
                "no descriptors for a worker",
                metadata: ["pool": "\(pools[pool].configuration.name)", "error": "\(text(of: error))", "hint": "raise LimitNOFILE"])
            discard(entry)
            fail(pool, worker, error)
            return
        }
        entry.pointee.generation = worker.generation
        if pools[pool].template.state == .ready { fork(pool, worker) } else { spawnCold(pool, worker) }
    }

    /// Sockets, page, stack file and pipes of one worker.
    private mutating func makeDescriptors(_ entry: UnsafeMutablePointer<WorkerEntry>) -> Bool {
        entry.pointee = WorkerEntry()
        var pair: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else { return false }
        entry.pointee.socket = pair[0]
        _ = fcntl(pair[0], F_SETFL, O_NONBLOCK)
        entry.pointee.childDescriptors = [pair[1]]
        let page = cpoold_memfd("poold-page", ExecutionPage.byteCount, true)
        guard page >= 0 else { return false }
        entry.pointee.childDescriptors.append(page)
        guard let words = ExecutionPage.map(page) else { return false }
        entry.pointee.page = words
        let stack = cpoold_memfd("poold-stack", 0, false)
        guard stack >= 0 else { return false }
        entry.pointee.stack = stack
        for stream in ["stdout", "stderr"] {
            var ends: [Int32] = [-1, -1]
            guard cpoold_pipe(&ends) == 0 else { return false }
            _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
            entry.pointee.output.append(OutputCapture(descriptor: ends[0], stream: stream, linesPerSecond: configuration.log.workerLinesPerSecond))
            entry.pointee.childDescriptors.append(ends[1])
        }
        return true
    }

    /// Closes everything that a worker's entry owns.
    private mutating func discard(_ entry: UnsafeMutablePointer<WorkerEntry>) {
        for descriptor in entry.pointee.childDescriptors { close(descriptor) }
        if entry.pointee.socket >= 0 { close(entry.pointee.socket) }
        if entry.pointee.stack >= 0 { close(entry.pointee.stack) }
        if entry.pointee.pidDescriptor >= 0 { close(entry.pointee.pidDescriptor) }
        if let page = entry.pointee.page { munmap(page, ExecutionPage.byteCount) }
        for output in entry.pointee.output { close(output.descriptor) }
        let generation = entry.pointee.generation
        entry.pointee = WorkerEntry()
        entry.pointee.generation = generation
    }

    mutating func spawnCold(_ pool: Int, _ worker: WorkerID) {
        let entry = pools[pool].workers + Int(worker.slot)
        guard entry.pointee.generation == worker.generation, entry.pointee.socket >= 0 else { return }
        let child = entry.pointee.childDescriptors
        let ticket = nextTicket
        nextTicket += 1
        let configuration = pools[pool].configuration
        let order = SpawnOrder(
            ticket: ticket, path: configuration.python, arguments: [configuration.python, "-m", "poold.worker", configuration.module],
            environment: environment(pool, ["POOLD_SLOT=\(worker.slot)", "POOLD_GENERATION=\(worker.generation)"]),
            descriptors: [-1, child[2], child[3], child[0], child[1], entry.pointee.stack], directory: configuration.directory)
        orders[ticket] = .worker(pool: pool, worker)
        if !spawner.submit(order) {
            orders[ticket] = nil
            fail(pool, worker, EAGAIN)
        }
    }

    /// What a worker's process sees: poold's own environment, the package's path, its place.
    func environment(_ pool: Int, _ extra: [String]) -> [String] {
        let configuration = pools[pool].configuration
        var result: [String] = []
        var pythonPath = configuration.pythonPath
        if let own = configuration.environment["PYTHONPATH"] { pythonPath.append(own) }
        var at = environ
        while let entry = at.pointee {
            let text = String(cString: entry)
            if text.hasPrefix("PYTHONPATH=") {
                pythonPath.append(String(text.dropFirst("PYTHONPATH=".count)))
            } else if let equals = text.firstIndex(of: "="), configuration.environment[String(text[..<equals])] != nil {
                // The pool's own comes below.
            } else if !text.hasPrefix("POOLD_") && !text.hasPrefix("NOTIFY_SOCKET=") && !text.hasPrefix("LISTEN_") && !text.hasPrefix("WATCHDOG_") {
                result.append(text)
            }
            at += 1
        }
        if !pythonPath.isEmpty { result.append("PYTHONPATH=" + pythonPath.joined(separator: ":")) }
        for (name, value) in configuration.environment.sorted(by: { $0.key < $1.key }) where name != "PYTHONPATH" { result.append("\(name)=\(value)") }
        result.append("POOLD_POOL=\(configuration.name)")
        if let warm = WarmEnvironment.variable(configuration) { result.append(warm) }
        return result + extra
    }

    mutating func fail(_ pool: Int, _ worker: WorkerID, _ error: Int32) {
        discard(pools[pool].workers + Int(worker.slot))
        startEnded(pool, worker)
        handle(pool, .workerSpawnFailed(worker, error: error))
    }

    /// The process exists: its socket joins the loop.
    mutating func born(_ pool: Int, _ worker: WorkerID, pid: Int32) {
        let entry = pools[pool].workers + Int(worker.slot)
        for descriptor in entry.pointee.childDescriptors { close(descriptor) }
        entry.pointee.childDescriptors = []
        entry.pointee.pid = pid
        entry.pointee.bornAt = now
        entry.pointee.pidDescriptor = cpoold_pidfd_open(pid)
        children[pid] = .worker(pool: pool, worker)
        if guardPipe >= 0 { _ = cpoold_guard_tell(guardPipe, pid, true) }
        guard let index = addConnection(entry.pointee.socket, .worker) else {
            journal.error("no room for a worker's connection", metadata: metadata(pool, worker))
            Glibc.kill(-pid, SIGKILL)
            Glibc.kill(pid, SIGKILL)
            return
        }
        entry.pointee.socket = -1
        entry.pointee.connection = index
        connections[index].pool = UInt16(pool)
        connections[index].slot = worker.slot
        for (stream, output) in entry.pointee.output.enumerated() {
            watch(
                output.descriptor, .output, index: OutputPlace(pool: pool, slot: Int(worker.slot), stream: stream, isTemplate: false).packed,
                generation: worker.generation)
        }
        handle(pool, .workerSpawned(worker))
    }

    mutating func takeOutcomes() {
        for outcome in spawner.takeOutcomes() {
            switch orders.removeValue(forKey: outcome.ticket) {
            case .worker(let pool, let worker):
                if outcome.pid > 0 {
                    born(pool, worker, pid: outcome.pid)
                } else {
                    let reason = "\(outcome.step): \(text(of: outcome.error))"
                    if pools[pool].failure.isEmpty { pools[pool].failure = reason }
                    journal.error("worker could not be spawned", metadata: ["pool": "\(pools[pool].configuration.name)", "error": "\(reason)"])
                    fail(pool, worker, outcome.error)
                }
            case .template(let pool): templateSpawned(pool, outcome)
            case nil: continue
            }
        }
        reapChildren()
    }

    func text(of error: Int32) -> String { String(cString: strerror(error)) }

    /// The template that was asked for this worker is gone: it gives its place back and is wanted anew. A fork that was not reported may
    /// hold the old descriptors until it sees them close.
    mutating func wantAgain(_ pool: Int, _ worker: WorkerID) {
        let entry = pools[pool].workers + Int(worker.slot)
        guard entry.pointee.generation == worker.generation, entry.pointee.socket >= 0 else { return }
        discard(entry)
        startEnded(pool, worker)
        spawnWanted(pool, worker)
    }

    // MARK: - Death

    /// One reaper: known children go to their owner, strangers (orphans that we inherited) are just reaped.
    mutating func reapChildren() {
        while true {
            let pid = cpoold_peek_exited()
            guard pid > 0 else { return }
            if knownChildExited(pid) { continue }
            // It may be one whose birth was not reported yet. While it is kept it hides those that ended after it.
            if !orders.isEmpty || pendingForks > 0 {
                for known in Array(children.keys) + [guardProcess] where known > 0 && cpoold_has_exited(known) { _ = knownChildExited(known) }
                return
            }
            var status: Int32 = 0
            _ = cpoold_reap(pid, &status)
            orphansReaped += 1
        }
    }

    private mutating func knownChildExited(_ pid: Int32) -> Bool {
        switch children[pid] {
        case .worker(let pool, let worker): workerExited(pool, worker, pid)
        case .template(let pool): templateExited(pool, pid)
        case nil:
            guard pid == guardProcess else { return false }
            guardExited()
        }
        return true
    }

    private mutating func workerExited(_ pool: Int, _ worker: WorkerID, _ pid: Int32) {
        let entry = pools[pool].workers + Int(worker.slot)
        // While the leader is not reaped, the group's number cannot be another's.
        Glibc.kill(-pid, SIGKILL)
        if guardPipe >= 0 { _ = cpoold_guard_tell(guardPipe, pid, false) }
        var status: Int32 = 0
        var maximumResident: UInt64 = 0
        _ = cpoold_reap_measured(pid, &status, &maximumResident)
        children[pid] = nil
        entry.pointee.pid = 0
        // What it answered before it died counts; end of file may never come, a grandchild can hold the socket.
        let index = entry.pointee.connection
        if index >= 0 {
            let generation = connections[index].generation
            var reads = 0
            while reads < Self.maximumLastReads, connections[index].role == .worker, connections[index].generation == generation, readOnce(index) > 0 {
                reads += 1
            }
            if connections[index].role == .worker && connections[index].generation == generation { closeConnection(index) }
        }
        entry.pointee.connection = -1
        for stream in entry.pointee.output.indices { finishOutput(pool, worker, stream, pid) }
        let started = entry.pointee.page.map { cpoold_load($0 + 1) } ?? 0
        let running = entry.pointee.page.map { cpoold_load($0 + 2) } ?? 0
        endStacks(of: worker, pool)
        let cause: ExitCause = status >= 1000 ? .signal(status - 1000) : .status(status)
        var death = deathRecord(pool, worker, pid, cause, maximumResident: maximumResident)
        death.cameFirst = endedBeforeItsSignal(pool, worker)
        pools[pool].deaths.append(death)
        discard(entry)
        startEnded(pool, worker)
        handle(pool, .workerExited(worker, started: started, running: running, cause: cause))
        endWhenStopped()
    }

    // MARK: - stdout and stderr

    mutating func readOutput(_ packed: Int, _ generation: UInt32) {
        let place = OutputPlace(packed: packed)
        let buffer = scratch
        let captured: OutputCapture
        let tag: Logger.Metadata
        if place.isTemplate {
            guard place.stream < pools[place.pool].template.output.count else { return }
            captured = pools[place.pool].template.output[place.stream]
            tag = ["pool": "\(pools[place.pool].configuration.name)", "template": "\(pools[place.pool].template.pid)", "stream": "\(captured.stream)"]
        } else {
            // Of a pool that is gone and whose place has been taken, perhaps by a smaller one.
            guard place.slot < pools[place.pool].workerCapacity else { return }
            let entry = pools[place.pool].workers + place.slot
            guard entry.pointee.generation & 0xFF_FFFF == generation, place.stream < entry.pointee.output.count else { return }
            captured = entry.pointee.output[place.stream]
            tag = metadata(place.pool, WorkerID(slot: UInt16(place.slot), generation: entry.pointee.generation)).merging(["stream": "\(captured.stream)"]) {
                $1
            }
        }
        // At most 64 KiB a turn: a worker that floods does not hold up the others.
        let count = read(captured.descriptor, buffer, 65_536)
        if count <= 0 {
            if count < 0 && (errno == EAGAIN || errno == EINTR) { return }
            _ = cpoold_epoll_control(epoll, EPOLL_CTL_DEL, captured.descriptor, 0, 0)
            return
        }
        var capture = captured
        let log = self.log
        capture.take(UnsafeRawBufferPointer(start: buffer, count: count), now: now) { log.info("worker says", metadata: tag.merging(["line": "\($0)"]) { $1 }) }
        if place.isTemplate {
            pools[place.pool].template.output[place.stream] = capture
        } else {
            (pools[place.pool].workers + place.slot).pointee.output[place.stream] = capture
        }
    }

    private mutating func finishOutput(_ pool: Int, _ worker: WorkerID, _ stream: Int, _ pid: Int32) {
        let entry = pools[pool].workers + Int(worker.slot)
        let tag: Logger.Metadata = [
            "pool": "\(pools[pool].configuration.name)", "worker": "\(worker.slot).\(worker.generation)", "pid": "\(pid)",
            "stream": "\(entry.pointee.output[stream].stream)",
        ]
        let log = self.log
        var rounds = 0
        while rounds < 16 {
            let count = read(entry.pointee.output[stream].descriptor, scratch, Self.scratchBytes)
            guard count > 0 else { break }
            entry.pointee.output[stream].take(UnsafeRawBufferPointer(start: scratch, count: count), now: now) {
                log.info("worker says", metadata: tag.merging(["line": "\($0)"]) { $1 })
            }
            rounds += 1
        }
        entry.pointee.output[stream].finish(now: now) { log.info("worker says", metadata: tag.merging(["line": "\($0)"]) { $1 }) }
    }
}

/// Whose output a pipe carries, in the 32 bits of a token's index.
struct OutputPlace {
    var pool: Int
    var slot: Int
    var stream: Int
    var isTemplate: Bool

    init(pool: Int, slot: Int, stream: Int, isTemplate: Bool) {
        self.pool = pool
        self.slot = slot
        self.stream = stream
        self.isTemplate = isTemplate
    }

    init(packed: Int) {
        pool = packed >> 16
        isTemplate = packed >> 15 & 1 == 1
        slot = packed >> 1 & 0x3FFF
        stream = packed & 1
    }

    var packed: Int { pool << 16 | (isTemplate ? 1 : 0) << 15 | slot << 1 | stream }
}
