import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

extension Shell {
    /// A pool's template is wanted, at first and after it died. Meanwhile workers wait for it, or start cold once it has failed.
    mutating func startTemplate(_ pool: Int) {
        templateDeadline = 0
        pools[pool].template.restartAt = .max
        guard pools[pool].configuration.usesTemplate, pools[pool].template.pid == 0, pools[pool].template.ticket == 0, !isStopping, !pools[pool].isRemoved
        else { return }
        if pools[pool].template.failures == 0 { pools[pool].template.state = .starting }
        guard !pools[pool].template.isQueued else { return }
        pools[pool].template.isQueued = true
        tellHost(.templateWanted(pool: UInt16(pool), patience: startPatience(pool)))
    }

    /// Its turn has come.
    mutating func launchTemplate(_ pool: Int) {
        guard pools[pool].template.isQueued else { return }
        templateDeadline = 0
        pools[pool].template.isQueued = false
        var pair: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
            return templateFailed(pool, text(of: errno))
        }
        _ = fcntl(pair[0], F_SETFL, O_NONBLOCK)
        var ends: [[Int32]] = []
        for _ in 0..<2 {
            var pipe: [Int32] = [-1, -1]
            guard cpoold_pipe(&pipe) == 0 else {
                for descriptor in pair + ends.flatMap({ $0 }) { close(descriptor) }
                return templateFailed(pool, text(of: EMFILE))
            }
            _ = fcntl(pipe[0], F_SETFL, O_NONBLOCK)
            ends.append(pipe)
        }
        let ticket = nextTicket
        nextTicket += 1
        let configuration = pools[pool].configuration
        let order = SpawnOrder(
            ticket: ticket, path: configuration.python, arguments: [configuration.python, "-m", "poold.template", configuration.module],
            environment: environment(pool, []), descriptors: [-1, ends[0][1], ends[1][1], pair[1]], directory: configuration.directory)
        pools[pool].template.control = pair[0]
        let lines = self.configuration.log.workerLinesPerSecond
        pools[pool].template.output = [
            OutputCapture(descriptor: ends[0][0], stream: "stdout", linesPerSecond: lines),
            OutputCapture(descriptor: ends[1][0], stream: "stderr", linesPerSecond: lines),
        ]
        pools[pool].template.childEnds = [pair[1], ends[0][1], ends[1][1]]
        pools[pool].template.ticket = ticket
        orders[ticket] = .template(pool: pool)
        if !spawner.submit(order) {
            orders[ticket] = nil
            pools[pool].template.ticket = 0
            discardTemplate(pool)
            templateFailed(pool, "too many processes are being spawned")
        }
    }

    mutating func templateSpawned(_ pool: Int, _ outcome: SpawnOutcome) {
        pools[pool].template.ticket = 0
        for descriptor in pools[pool].template.childEnds { close(descriptor) }
        pools[pool].template.childEnds = []
        guard outcome.pid > 0 else {
            discardTemplate(pool)
            if pools[pool].template.isReplaced { return startReplacement(pool, []) }
            templateFailed(pool, "\(outcome.step): \(text(of: outcome.error))")
            return
        }
        pools[pool].template.pid = outcome.pid
        pools[pool].template.answerBy = now + pools[pool].configuration.policy.startTimeout
        templateDeadline = 0
        children[outcome.pid] = .template(pool: pool)
        if guardPipe >= 0 { _ = cpoold_guard_tell(guardPipe, outcome.pid, true) }
        watch(pools[pool].template.control, .template, index: pool)
        for stream in 0..<2 {
            watch(pools[pool].template.output[stream].descriptor, .output, index: OutputPlace(pool: pool, slot: 0, stream: stream, isTemplate: true).packed)
        }
        // While it was made, something may have changed.
        if isStopping || pools[pool].isRemoved || pools[pool].template.isReplaced { stopTemplate(pool) }
    }

    /// Another pool's may start.
    private mutating func templateStartEnded(_ pool: Int) { tellHost(.templateEnded(pool: UInt16(pool))) }

    private mutating func discardTemplate(_ pool: Int) {
        if pools[pool].template.control >= 0 { close(pools[pool].template.control) }
        pools[pool].template.control = -1
        for descriptor in pools[pool].template.childEnds { close(descriptor) }
        pools[pool].template.childEnds = []
        pools[pool].template.answerBy = .max
        for output in pools[pool].template.output { close(output.descriptor) }
        pools[pool].template.output = []
    }

    /// Who waited for it starts cold; it is tried again later, later each time.
    private mutating func templateFailed(_ pool: Int, _ reason: String) {
        pools[pool].template.state = .failed
        pools[pool].template.failures += 1
        let wait = min(UInt64(200_000_000) << UInt64(min(pools[pool].template.failures, 8)), 30_000_000_000)
        if !isStopping && !pools[pool].isRemoved {
            pools[pool].template.restartAt = now + wait
            templateDeadline = 0
            journal.warning(
                "template is gone; workers start cold until it is back",
                metadata: ["pool": "\(pools[pool].configuration.name)", "reason": "\(reason)", "retry_milliseconds": "\(wait / 1_000_000)"])
        }
        templateStartEnded(pool)
        startWaiting(pool)
    }

    // MARK: - Forking

    /// Passes the worker's descriptors to the template, which answers with its pid.
    mutating func fork(_ pool: Int, _ worker: WorkerID) {
        let entry = pools[pool].workers + Int(worker.slot)
        guard entry.pointee.generation == worker.generation, entry.pointee.socket >= 0 else { return }
        var order: [UInt8] = [UInt8(ascii: "S")]
        order.appendBigEndian(UInt32(worker.slot))
        order.appendBigEndian(UInt64(worker.generation))
        let child = entry.pointee.childDescriptors
        let descriptors = [child[0], child[1], entry.pointee.stack, child[2], child[3]]
        guard cpoold_send_descriptors(pools[pool].template.control, order, order.count, descriptors, Int32(descriptors.count)) == order.count else {
            spawnCold(pool, worker)
            return
        }
        templateDeadline = 0
        if pools[pool].template.asked.isEmpty { pools[pool].template.answerBy = now + pools[pool].configuration.policy.startTimeout }
        pools[pool].template.asked.append(worker)
        pendingForks += 1
    }

    /// One that floods its socket does not hold up the others.
    private static let messagesPerTurn = 64

    mutating func readTemplate(_ pool: Int) {
        guard pools[pool].template.control >= 0 else { return }
        var messages = 0
        while pools[pool].template.control >= 0, messages < Self.messagesPerTurn {
            messages += 1
            let count = recv(pools[pool].template.control, scratch, 65_536, 0)
            if count < 0 && (errno == EAGAIN || errno == EINTR) { break }
            guard count > 0 else {
                // It closed its end: its exit follows.
                _ = cpoold_epoll_control(epoll, EPOLL_CTL_DEL, pools[pool].template.control, 0, 0)
                break
            }
            let message = [UInt8](UnsafeRawBufferPointer(start: scratch, count: count))
            templateSays(pool, message)
        }
        reapChildren()
    }

    private mutating func templateSays(_ pool: Int, _ message: [UInt8]) {
        switch message[0] {
        case UInt8(ascii: "R"):
            // Another one, of other code, is to come: who waits waits for that.
            guard !pools[pool].template.isReplaced else { break }
            pools[pool].template.state = .ready
            pools[pool].template.failures = 0
            pools[pool].template.answerBy = .max
            journal.info("template is ready", metadata: ["pool": "\(pools[pool].configuration.name)", "pid": "\(pools[pool].template.pid)"])
            templateStartEnded(pool)
            startWaiting(pool)
        case UInt8(ascii: "F"):
            let reason = String(decoding: message.dropFirst(), as: UTF8.self)
            pools[pool].template.refusal = reason
        case UInt8(ascii: "W") where message.count == 17, UInt8(ascii: "E") where message.count >= 13:
            answered(pool, message)
        default:
            journal.error("template sent rubbish and is ended", metadata: ["pool": "\(pools[pool].configuration.name)"])
            if pools[pool].template.pid > 0 { Glibc.kill(pools[pool].template.pid, SIGKILL) }
        }
    }

    private mutating func answered(_ pool: Int, _ message: [UInt8]) {
        func integer(_ range: Range<Int>) -> UInt64 { message[range].reduce(0) { $0 << 8 | UInt64($1) } }
        let slot = integer(1..<5)
        guard slot < UInt64(pools[pool].workerCapacity), let generation = UInt32(exactly: integer(5..<13)) else { return }
        let worker = WorkerID(slot: UInt16(slot), generation: generation)
        guard let at = pools[pool].template.asked.firstIndex(of: worker) else { return }
        pools[pool].template.asked.remove(at: at)
        pendingForks -= 1
        templateDeadline = 0
        pools[pool].template.answerBy = pools[pool].template.asked.isEmpty ? .max : now + pools[pool].configuration.policy.startTimeout
        guard pools[pool].workers[Int(slot)].generation == generation, pools[pool].workers[Int(slot)].socket >= 0 else { return }
        if message[0] == UInt8(ascii: "E") {
            let reason = String(decoding: message.dropFirst(13), as: UTF8.self)
            journal.error("template could not fork", metadata: ["pool": "\(pools[pool].configuration.name)", "reason": "\(reason)"])
            fail(pool, worker, EAGAIN)
            return
        }
        let pid = Int32(truncatingIfNeeded: integer(13..<17))
        guard pid > 1, children[pid] == nil, cpoold_is_child(pid) else {
            journal.error("template named a process that is not poold's child", metadata: ["pool": "\(pools[pool].configuration.name)", "pid": "\(pid)"])
            fail(pool, worker, ECHILD)
            return
        }
        born(pool, worker, pid: pid)
    }

    // MARK: - Its end

    /// Its import, or a fork, takes longer than a worker's start may: it is ended, and its workers start cold.
    mutating func templateHangs(_ pool: Int) {
        pools[pool].template.answerBy = .max
        guard pools[pool].template.pid > 0 else { return }
        pools[pool].template.refusal = "it did not answer within \(SpanText.text(pools[pool].configuration.policy.startTimeout))"
        Glibc.kill(pools[pool].template.pid, SIGKILL)
    }

    /// What is due of templates, and when the next thing is.
    mutating func tendTemplates() {
        templateDeadline = .max
        for pool in 0..<poolCount {
            if pools[pool].template.restartAt <= now { startTemplate(pool) }
            if pools[pool].template.answerBy <= now { templateHangs(pool) }
        }
        templateDeadline = .max
        for pool in 0..<poolCount { templateDeadline = min(templateDeadline, pools[pool].template.restartAt, pools[pool].template.answerBy) }
    }

    // MARK: - Another one in its place

    /// Ends the template and starts one that imports what is there now. Workers that are wanted meanwhile wait for it.
    mutating func replaceTemplate(_ pool: Int) {
        pools[pool].template.failures = 0
        if pools[pool].template.pid > 0 || pools[pool].template.ticket != 0 {
            pools[pool].template.isReplaced = true
            if pools[pool].configuration.usesTemplate { pools[pool].template.state = .starting }
            stopTemplate(pool)
        } else if pools[pool].configuration.usesTemplate {
            startTemplate(pool)
        } else {
            stopTemplate(pool)
            pools[pool].template.state = .off
        }
    }

    /// The old one has ended.
    private mutating func startReplacement(_ pool: Int, _ asked: [WorkerID]) {
        pools[pool].template.isReplaced = false
        pools[pool].template.refusal = ""
        pools[pool].template.failures = 0
        // A pool that stops gets no other template: who waits must come to be all the same, so that its end can be seen.
        let isWanted = pools[pool].configuration.usesTemplate && !isStopping && !pools[pool].isRemoved
        pools[pool].template.state = isWanted ? .starting : .off
        templateStartEnded(pool)
        for worker in asked { wantAgain(pool, worker) }
        if isWanted { startTemplate(pool) } else { startWaiting(pool) }
        endWhenStopped()
    }

    /// It is decided whether the template comes: those that waited for it get on, by it or cold.
    private mutating func startWaiting(_ pool: Int) {
        let waiting = pools[pool].template.waiting
        pools[pool].template.waiting = []
        for worker in waiting { spawnWanted(pool, worker) }
    }

    mutating func stopTemplate(_ pool: Int) {
        pools[pool].template.restartAt = .max
        if pools[pool].template.isQueued {
            pools[pool].template.isQueued = false
            pools[pool].template.state = .off
            templateStartEnded(pool)
            startWaiting(pool)
        }
        if pools[pool].template.pid > 0 { Glibc.kill(pools[pool].template.pid, SIGKILL) }
    }

    mutating func templateExited(_ pool: Int, _ pid: Int32) {
        // It may have answered before it died.
        var messages = 0
        // As many as it can have been asked for, and a few: a grandchild may hold the socket and write on.
        while pools[pool].template.control >= 0, messages < pools[pool].workerCapacity + Self.messagesPerTurn {
            messages += 1
            let count = recv(pools[pool].template.control, scratch, 65_536, 0)
            guard count > 0 else { break }
            templateSays(pool, [UInt8](UnsafeRawBufferPointer(start: scratch, count: count)))
        }
        if guardPipe >= 0 { _ = cpoold_guard_tell(guardPipe, pid, false) }
        var status: Int32 = 0
        _ = cpoold_reap(pid, &status)
        children[pid] = nil
        pools[pool].template.pid = 0
        let log = self.log
        let name = pools[pool].configuration.name
        for stream in pools[pool].template.output.indices {
            let count = read(pools[pool].template.output[stream].descriptor, scratch, 65_536)
            let tag: Logger.Metadata = ["pool": "\(name)", "template": "\(pid)", "stream": "\(pools[pool].template.output[stream].stream)"]
            if count > 0 {
                pools[pool].template.output[stream].take(UnsafeRawBufferPointer(start: scratch, count: count), now: now) {
                    log.info("worker says", metadata: tag.merging(["line": "\($0)"]) { $1 })
                }
            }
            pools[pool].template.output[stream].finish(now: now) { log.info("worker says", metadata: tag.merging(["line": "\($0)"]) { $1 }) }
        }
        discardTemplate(pool)
        // Forks that it did not report: the child sees its socket close and ends; another is started.
        let asked = pools[pool].template.asked
        pools[pool].template.asked = []
        pendingForks -= asked.count
        if pools[pool].template.isReplaced { return startReplacement(pool, asked) }
        let refusal = pools[pool].template.refusal
        pools[pool].template.refusal = ""
        templateFailed(pool, refusal.isEmpty ? (status >= 1000 ? "signal \(status - 1000)" : "exit status \(status)") : refusal)
        for worker in asked { wantAgain(pool, worker) }
        endWhenStopped()
    }
}
