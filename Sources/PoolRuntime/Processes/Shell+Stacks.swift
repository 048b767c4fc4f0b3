import CPoold
import Glibc
import PoolConfig
import PoolCore
import PoolProtocol
import PoolWire
import SwiftProtobuf

extension Shell {
    // MARK: - Asking a living worker

    /// Writes into the page that a stack is wanted and returns its number. The caller signals.
    private mutating func ask(_ pool: Int, _ worker: WorkerID) -> UInt64? {
        // What has come already is read before the file is emptied.
        collectStacks(pool, worker)
        let entry = pools[pool].workers + Int(worker.slot)
        guard entry.pointee.generation == worker.generation, let page = entry.pointee.page else { return nil }
        if stacks.requests.contains(where: { $0.pool == pool && $0.worker == worker && $0.number == entry.pointee.stackNumber }) {
            return entry.pointee.stackNumber
        }
        emptyStackFile(entry.pointee.stack)
        entry.pointee.stackNumber += 1
        cpoold_store(page + 4, entry.pointee.stackNumber)
        return entry.pointee.stackNumber
    }

    private func emptyStackFile(_ descriptor: Int32) {
        guard descriptor >= 0 else { return }
        // The worker's descriptor is the same open file: it goes on at the beginning too.
        _ = ftruncate(descriptor, 0)
        _ = lseek(descriptor, 0, SEEK_SET)
    }

    /// What stands in a worker's stack file, bounded.
    func stackText(_ pool: Int, _ worker: WorkerID) -> String {
        let descriptor = pools[pool].workers[Int(worker.slot)].stack
        guard descriptor >= 0 else { return "" }
        // Not into `scratch`: the frames of a connection may be read from it at this moment.
        return withUnsafeTemporaryAllocation(byteCount: StackBoard.maximumText, alignment: 16) { buffer in
            let count = pread(descriptor, buffer.baseAddress!, buffer.count, 0)
            guard count > 0 else { return "" }
            return String(decoding: buffer[..<count].map { $0 < 0x20 && $0 != 0x09 && $0 != 0x0A || $0 == 0x7F ? 0x3F : $0 }, as: UTF8.self)
        }
    }

    /// The budget of a running call is over: asks where it runs. True: the worker is to be signalled, and the error is held back.
    mutating func askForOverrun(_ pool: Int, _ worker: WorkerID, _ number: UInt64) -> Bool {
        guard let given = pools[pool].machine.givenUpCall(worker, number: number), given.isExpired else { return false }
        guard stacks.heldCount < StackBoard.maximumHeld, let wanted = ask(pool, worker) else { return false }
        stacks.requests.append(
            StackBoard.Request(pool: pool, worker: worker, number: wanted, askedAt: now, purpose: .overrun(StackBoard.HeldError(call: given.call))))
        stacks.rearm()
        return true
    }

    /// The machine ends the call. True: its error waits for the stack.
    mutating func holdsForStack(_ pool: Int, _ call: CallID, _ connection: Int, _ clientID: UInt64) -> Bool {
        for at in stacks.requests.indices where stacks.requests[at].pool == pool {
            guard case .overrun(var held) = stacks.requests[at].purpose, held.call == call, held.connection < 0 else { continue }
            held.connection = connection
            held.generation = connections[connection].generation
            held.clientID = clientID
            stacks.requests[at].purpose = .overrun(held)
            return true
        }
        return false
    }

    // MARK: - Looking

    /// From the end of a turn, when the board's deadline has come.
    mutating func lookAtStacks() {
        var at = 0
        while at < stacks.ends.count {
            let end = stacks.ends[at]
            guard end.at <= now else {
                at += 1
                continue
            }
            if end.asksForStack {
                askForLastStack(end.pool, end.worker)
                stacks.ends[at].asksForStack = false
                stacks.ends[at].at = now + StackBoard.endDelay
                at += 1
                continue
            }
            stacks.ends.remove(at: at)
            signal(end.pool, end.worker, end.signal, group: end.isForGroup)
        }
        var asked: [(pool: Int, worker: WorkerID)] = []
        for request in stacks.requests where request.nextLook <= now && !asked.contains(where: { $0.pool == request.pool && $0.worker == request.worker }) {
            asked.append((request.pool, request.worker))
        }
        for (pool, worker) in asked { collectStacks(pool, worker) }
        var late: [StackBoard.Request] = []
        for at in stacks.requests.indices where stacks.requests[at].nextLook <= now { stacks.requests[at].looksDone += 1 }
        stacks.requests.removeAll { request in
            guard request.looksDone >= request.lastLook else { return false }
            late.append(request)
            return true
        }
        for request in late {
            switch request.purpose {
            case .overrun: settle(request, "", "the worker did not come back to Python code within 20 ms: it runs C code, or waits for a processor")
            case .batch:
                settle(
                    request, "",
                    "it runs C code that does not return to Python; its stack can be had only by ending it: poolctl kill, then poolctl post-mortem")
            }
        }
        stacks.rearm()
    }

    /// Answers everybody who waits for what this worker has written by now.
    private mutating func collectStacks(_ pool: Int, _ worker: WorkerID) {
        let entry = pools[pool].workers + Int(worker.slot)
        guard entry.pointee.generation == worker.generation, let page = entry.pointee.page else { return }
        let done = cpoold_load(page + 5)
        guard stacks.requests.contains(where: { $0.pool == pool && $0.worker == worker && $0.number <= done }) else { return }
        let text = stackText(pool, worker)
        // What is found there after its death is of its death.
        emptyStackFile(entry.pointee.stack)
        settleAll(pool, worker, upTo: done, text, text.isEmpty ? "it wrote nothing" : "")
    }

    private mutating func settleAll(_ pool: Int, _ worker: WorkerID, upTo number: UInt64, _ text: String, _ problem: String) {
        var settled: [StackBoard.Request] = []
        stacks.requests.removeAll { request in
            guard request.pool == pool, request.worker == worker, request.number <= number else { return false }
            settled.append(request)
            return true
        }
        for request in settled { settle(request, text, problem) }
        stacks.rearm()
    }

    /// It is dead: whoever waits for its stack is told so.
    mutating func endStacks(of worker: WorkerID, _ pool: Int) {
        guard !stacks.requests.isEmpty else { return }
        collectStacks(pool, worker)
        settleAll(pool, worker, upTo: .max, "", "the worker ended before it could write it")
    }

    private mutating func settle(_ request: StackBoard.Request, _ text: String, _ problem: String) {
        switch request.purpose {
        case .overrun(let held):
            // Who has gone meanwhile is not written to: another may have its place.
            guard held.connection >= 0, connections[held.connection].generation == held.generation, connections[held.connection].role == .client else { return }
            let error = ErrorText.timeoutRunning(pool: pools[request.pool].configuration.name, stack: text, problem)
            answer(held.connection, held.clientID, .timeoutRunning, error)
        case .batch(let number, let pid, let runningMethod):
            guard let at = stacks.batches.firstIndex(where: { $0.number == number }) else { return }
            var line = Poold_V1_Stack()
            line.pool = pools[request.pool].configuration.name
            line.worker = "\(request.worker.slot).\(request.worker.generation)"
            line.pid = pid
            line.runningMethod = runningMethod
            line.text = text
            line.problem = problem
            add(line, toBatch: at)
            stacks.batches[at].waiting -= 1
            answerBatchIfComplete(at)
        }
    }

    private mutating func add(_ line: Poold_V1_Stack, toBatch at: Int) {
        var line = line
        if stacks.batches[at].bytes + line.text.utf8.count > StackBoard.maximumAnswer {
            line.text = ""
            line.problem = "the stacks of all workers are too much for one answer; ask for this one alone"
        }
        stacks.batches[at].bytes += line.text.utf8.count
        stacks.batches[at].answer.stacks.append(line)
    }

    private mutating func answerBatchIfComplete(_ at: Int) {
        guard stacks.batches[at].waiting == 0 else { return }
        var batch = stacks.batches.remove(at: at)
        guard connections[batch.connection].role == .control, connections[batch.connection].generation == batch.generation else { return }
        batch.answer.stacks.sort { ($0.pool, $0.worker) < ($1.pool, $1.worker) }
        let bytes: [UInt8] = (try? batch.answer.serializedBytes()) ?? []
        bytes.withUnsafeBytes {
            appendFrame(batch.connection, Header(.control, code: UInt16(Poold_V1_Operation.stack.rawValue), id: batch.id), $0)
        }
    }

    // MARK: - The operator asks

    /// Answered later: the loop does not wait for a worker.
    mutating func operatorStack(_ index: Int, _ id: UInt64, _ body: [UInt8]) throws {
        let request = try Poold_V1_PoolRequest(serializedBytes: body)
        let pool = try find(request.pool)
        let wanted: [WorkerID]
        if request.slot >= 0 {
            wanted = [try worker(pool, request)]
        } else {
            wanted = pools[pool].machine.status(now: Instant(nanoseconds: now)).workers.filter { $0.phase == .ready }.map(\.worker)
        }
        guard stacks.batches.count < StackBoard.maximumBatches, stacks.requests.count + wanted.count <= StackBoard.maximumAsked else {
            throw ControlFault(status: .quotaExceeded, text: "\(stacks.batches.count) operators are being shown stacks just now; try again in a second")
        }
        let number = stacks.takeBatchNumber()
        stacks.batches.append(StackBoard.Batch(number: number, connection: index, generation: connections[index].generation, id: id, waiting: 1))
        for worker in wanted { askForBatch(number, pool, worker) }
        stacks.rearm()
        if let at = stacks.batches.firstIndex(where: { $0.number == number }) {
            stacks.batches[at].waiting -= 1
            answerBatchIfComplete(at)
        }
    }

    private mutating func askForBatch(_ batch: Int, _ pool: Int, _ worker: WorkerID) {
        let entry = pools[pool].workers[Int(worker.slot)]
        let phase = pools[pool].machine.listing(worker)?.phase
        let running = runningCall(pool, worker).map { "\(pools[pool].configuration.name).\(methodName(pool, $0.method))" } ?? ""
        // Before it is ready it has no handler, and the signal would end it.
        guard phase == .ready || phase == .draining, !entry.isDumped, entry.pidDescriptor >= 0, let number = ask(pool, worker) else {
            guard let at = stacks.batches.firstIndex(where: { $0.number == batch }) else { return }
            var line = Poold_V1_Stack()
            line.pool = pools[pool].configuration.name
            line.worker = "\(worker.slot).\(worker.generation)"
            line.pid = entry.pid
            line.runningMethod = running
            line.problem = "it is \(phase.map { "\($0)" } ?? "gone"): only a ready worker can be asked; poolctl post-mortem has the stack of one that was ended"
            return add(line, toBatch: at)
        }
        if let at = stacks.batches.firstIndex(where: { $0.number == batch }) { stacks.batches[at].waiting += 1 }
        stacks.requests.append(
            StackBoard.Request(
                pool: pool, worker: worker, number: number, askedAt: now, purpose: .batch(batch, pid: entry.pid, runningMethod: running)))
        _ = cpoold_pidfd_signal(entry.pidDescriptor, SIGUSR1)
    }

    // MARK: - Before a worker is ended

    /// SIGTERM or SIGKILL. Where the post-mortem will ask what it was doing, faulthandler writes the stacks first: also of one
    /// that holds the interpreter's lock in C. Once for each worker, since repeated dumps can crash a process with threads.
    mutating func end(_ pool: Int, _ worker: WorkerID, _ signal: Int32, group: Bool) {
        let entry = pools[pool].workers + Int(worker.slot)
        guard entry.pointee.generation == worker.generation, entry.pointee.pid > 0 else { return }
        guard let cause = pools[pool].machine.listing(worker)?.cause, !entry.pointee.isDumped, entry.pointee.pidDescriptor >= 0,
            stacks.ends.count < StackBoard.maximumEnds
        else { return self.signal(pool, worker, signal, group: group) }
        var later = StackBoard.End(pool: pool, worker: worker, signal: signal, isForGroup: group, at: now + StackBoard.endDelay)
        switch cause {
        case .hung, .unhealthy, .graceOver, .operatorKill, .startTimeout, .protocolFault: askForLastStack(pool, worker)
        case .socketClosed:
            later.asksForStack = true
            later.at = now + StackBoard.closedDelay
        case .setupFailed where signal == SIGTERM: later.at = now + StackBoard.setupFailedDelay
        case .wanted, .spawnFailed, .setupFailed, .becameReady, .scaledDown, .age, .calls, .memory, .operatorRecycle, .exited, .crashed, .shutdown, .replaced:
            return self.signal(pool, worker, signal, group: group)
        }
        stacks.ends.append(later)
        stacks.rearm()
    }

    private mutating func askForLastStack(_ pool: Int, _ worker: WorkerID) {
        let entry = pools[pool].workers + Int(worker.slot)
        guard entry.pointee.generation == worker.generation, entry.pointee.pid > 0, !entry.pointee.isDumped else { return }
        // The file is not emptied: a crash may just have written its own.
        collectStacks(pool, worker)
        entry.pointee.isDumped = true
        _ = cpoold_pidfd_signal(entry.pointee.pidDescriptor, SIGUSR2)
    }

    /// It is dead. True: before the signal that was to end it.
    mutating func endedBeforeItsSignal(_ pool: Int, _ worker: WorkerID) -> Bool {
        let before = stacks.ends.count
        stacks.ends.removeAll { $0.pool == pool && $0.worker == worker }
        return stacks.ends.count < before
    }
}
