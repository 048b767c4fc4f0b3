import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

extension Shell {
    /// Does what a machine asked for, in order; effects whose outcome is known at once feed it back.
    @inline(__always) mutating func carryOut(_ pool: Int) {
        var at = 0
        while at < effects.effects.count {
            let effect = effects.effects[at]
            at += 1
            switch effect {
            case .admit(let call): admitted(pool, call)
            case .send(let call, let worker, let number, let deadline): send(pool, call, worker, number, deadline)
            case .deliver(let call): deliver(pool, call)
            case .refuse(let refusal): refuse(pool, refusal)
            case .finish(let call, let outcome): finish(pool, call, outcome)
            case .release(let call): release(pool, call)
            case .blame(let call, let method): blame(pool, call, method)
            case .revoke(let worker, let number, let interrupt): revoke(pool, worker, number, number, interrupt)
            case .takeBack(let worker, let first, let last): revoke(pool, worker, first, last, false)
            case .spawn(let worker): spawnWanted(pool, worker)
            case .ping(let worker):
                withSocket(pool, worker) { shell, index in shell.appendFrame(index, Header(.ping, id: 1, time: shell.now)) }
            case .drainWorker(let worker):
                withSocket(pool, worker) { shell, index in shell.appendFrame(index, Header(.drain)) }
            case .terminate(let worker): end(pool, worker, SIGTERM, group: false)
            case .kill(let worker): end(pool, worker, SIGKILL, group: true)
            case .measure(let worker):
                let entry = pools[pool].workers[Int(worker.slot)]
                guard entry.generation == worker.generation, entry.pid > 0 else { continue }
                feed(pool, .workerMeasured(worker, privateBytes: cpoold_private_bytes(entry.pid)))
            case .publish(let notice): publish(pool, notice)
            case .stopped:
                pools[pool].isStopped = true
                if pools[pool].isRemoved { journal.notice("pool is gone", metadata: ["pool": "\(pools[pool].configuration.name)"]) }
                endWhenStopped()
            }
        }
        effects.removeAll()
        deadlines[pool] = pools[pool].machine.nextDeadline?.nanoseconds ?? .max
    }

    /// An outcome that is known at once: its effects follow those at hand.
    private mutating func feed(_ pool: Int, _ event: Event) {
        pools[pool].machine.handle(event, now: Instant(nanoseconds: now), into: &effects)
    }

    private mutating func withSocket(_ pool: Int, _ worker: WorkerID, _ body: (inout Shell, Int) -> Void) {
        let entry = pools[pool].workers[Int(worker.slot)]
        guard entry.generation == worker.generation, entry.connection >= 0 else { return }
        body(&self, entry.connection)
    }

    // MARK: - Calls

    private mutating func admitted(_ pool: Int, _ call: CallID) {
        let index = arrivalConnection
        guard index >= 0 else { return warmAdmitted(pool, call) }
        let context = pools[pool].contexts + Int(call.index)
        let length = arrivalBody.count
        let block: Block
        var offset = Header.size
        if length > CallContext.largeBody && handover.holds(arrivalBody) {
            block = handover
            handover = Block()
            offset = arrivalBody.baseAddress! - UnsafeRawPointer(block.pointer!)
        } else {
            block = blocks.allocate(Header.size + length)
            if length > 0 { memcpy(block.pointer! + Header.size, arrivalBody.baseAddress!, length) }
        }
        if length > CallContext.largeBody { blocks.startSharing(block) }
        let reference = CallReference(pool: pool, index: call.index)
        let first = connections[index].firstCall
        context.pointee = CallContext(
            connection: Int32(index), clientID: arrivalHeader.id, session: arrivalHeader.session,
            block: block, bodyOffset: Int32(offset), bodyLength: length, method: arrivalMethod, flags: arrivalHeader.flags & ~FrameFlags.named, call: call,
            previous: .none, next: first)
        if first != .none { pools[first.pool].contexts[first.index].previous = reference }
        connections[index].firstCall = reference
        connections[index].callCount += 1
        connections[index].heldBytes += length
    }

    /// Takes a call off its connection's list.
    mutating func unlinkCall(_ context: UnsafeMutablePointer<CallContext>) {
        let index = Int(context.pointee.connection)
        guard index >= 0 else { return }
        let (previous, next) = (context.pointee.previous, context.pointee.next)
        if previous == .none { connections[index].firstCall = next } else { pools[previous.pool].contexts[previous.index].next = next }
        if next != .none { pools[next.pool].contexts[next.index].previous = previous }
        connections[index].callCount -= 1
        connections[index].heldBytes -= context.pointee.bodyLength
        if connections[index].paused && connections[index].role == .client && !connections[index].closing { setInterest(index) }
    }

    /// Ends a call's context: its connection, if that still is there, or -1.
    @inline(__always) private mutating func take(_ pool: Int, _ call: CallID) -> (connection: Int, id: UInt64) {
        let context = pools[pool].contexts + Int(call.index)
        unlinkCall(context)
        if context.pointee.isLarge { blocks.releaseShared(context.pointee.block) } else { blocks.release(context.pointee.block) }
        context.pointee.block = Block()
        return (Int(context.pointee.connection), context.pointee.clientID)
    }

    private mutating func send(_ pool: Int, _ call: CallID, _ worker: WorkerID, _ number: UInt64, _ deadline: Instant) {
        let entry = pools[pool].workers + Int(worker.slot)
        guard entry.pointee.connection >= 0 else { return }
        let context = pools[pool].contexts + Int(call.index)
        let length = context.pointee.bodyLength
        let method = Int(context.pointee.method)
        let header = Header(
            .call, flags: context.pointee.flags, code: method < entry.pointee.numbers.count ? entry.pointee.numbers[method] : builtInNumber(method), id: number,
            session: context.pointee.session, time: deadline.nanoseconds, bodyLength: length)
        guard !context.pointee.isLarge else {
            return appendLarge(entry.pointee.connection, header, context.pointee.body, .call(context.pointee.block))
        }
        let place = reserve(entry.pointee.connection, Header.size + length)
        header.write(to: place)
        if length > 0 { memcpy(place + Header.size, context.pointee.block.pointer! + Header.size, length) }
    }

    private func builtInNumber(_ method: Int) -> UInt16 { method == Int(MethodID.builtIn.index) ? WarmEnvironment.methodNumber : 0 }

    private mutating func deliver(_ pool: Int, _ call: CallID) {
        let (index, id) = take(pool, call)
        guard index >= 0 else {
            if index == CallContext.warming { warmReplied(call, job: id) }
            return
        }
        var header = replyHeader
        header.id = id
        if replyBody.count > CallContext.largeBody { return deliverLarge(index, header) }
        let place = reserve(index, Header.size + replyBody.count)
        header.write(to: place)
        if replyBody.count > 0 { memcpy(place + Header.size, replyBody.baseAddress!, replyBody.count) }
        checkUnread(index)
    }

    private mutating func deliverLarge(_ index: Int, _ header: Header) {
        guard connections[index].greeted || replyBody.count <= Self.largestBodyUngreeted else {
            return appendError(
                index, id: header.id, .resultTooLarge, time: header.time,
                "the result has \(replyBody.count) bytes; without HELLO a body may have \(Self.largestBodyUngreeted)")
        }
        if handover.holds(replyBody) {
            let block = handover
            handover = Block()
            appendLarge(index, header, replyBody, .queue(block))
        } else {
            appendLarge(index, header, replyBody, .nobody)
        }
        checkUnread(index)
    }

    /// Who does not read its replies is read no further, and in the end let go.
    @inline(__always) mutating func checkUnread(_ index: Int) {
        if connections[index].unwritten > configuration.unreadBytesPerConnection { tooMuchUnread(index) }
    }

    private mutating func tooMuchUnread(_ index: Int) {
        guard connections[index].role != .free else { return }
        if connections[index].unwritten > configuration.unreadBytesToClose {
            if faultLog.allows(now) {
                log.warning("connection closed: its replies are not read", metadata: ["unread_bytes": "\(connections[index].unwritten)"])
            }
            closeConnection(index)
        } else if !connections[index].paused {
            setInterest(index)
        }
    }

    private mutating func finish(_ pool: Int, _ call: CallID, _ outcome: Outcome) {
        let (index, id) = take(pool, call)
        guard index >= 0 else {
            if index == CallContext.warming { warmFinished(pool, call, outcome, job: id) }
            return
        }
        if outcome == .timeoutRunning && holdsForStack(pool, call, index, id) { return }
        if operatorCancel != .none && operatorCancel == CallReference(pool: pool, index: call.index) {
            return appendError(index, id: id, .cancelled, time: 0, ErrorText.cancelledByOperator(began: outcome.began))
        }
        let (status, text) = ErrorText.of(outcome, pool: pools[pool].configuration.name, unavailable: unavailable(pool))
        appendError(index, id: id, status, time: outcome == .shed || outcome == .unavailable ? 1_000_000_000 : 0, text)
        checkUnread(index)
    }

    private mutating func release(_ pool: Int, _ call: CallID) { _ = take(pool, call) }

    private mutating func refuse(_ pool: Int, _ refusal: Refusal) {
        guard arrivalConnection >= 0 else { return warmRefused(pool, refusal) }
        var (status, text) = ErrorText.of(refusal, pool: pools[pool].configuration.name, unavailable: unavailable(pool))
        if refusal.reason == .quarantined {
            text += "\n" + quarantineHistory(pool)
            extraWork += Self.workOfRefusal + 16 * PoolMachine.maximumSuspects
        }
        appendError(arrivalConnection, id: arrivalHeader.id, status, time: refusal.retryAfter, text)
    }

    /// Why this pool serves nobody.
    func unavailable(_ pool: Int) -> String {
        ErrorText.unavailable(
            pools[pool].configuration.name, wanted: pools[pool].machine.load.wanted, circuit: pools[pool].machine.circuit, failure: pools[pool].failure)
    }

    private mutating func blame(_ pool: Int, _ call: CallID, _ method: MethodID) {
        let context = pools[pool].contexts + Int(call.index)
        guard context.pointee.block.pointer != nil else { return }
        let hash = Self.hash(method: method.index, flags: context.pointee.flags, context.pointee.body)
        pools[pool].deaths.blame(call, hash)
        feed(pool, .callBlamed(method: method, hash: hash))
    }

    // MARK: - Workers

    /// Store, fence, read: what has not begun by then never will.
    private mutating func revoke(_ pool: Int, _ worker: WorkerID, _ first: UInt64, _ last: UInt64, _ interrupt: Bool) {
        let entry = pools[pool].workers[Int(worker.slot)]
        guard entry.generation == worker.generation, let page = entry.page else { return }
        var number = first
        while number <= last {
            cpoold_store(page + 64 + Int(number & 63), number)
            number += 1
        }
        _ = cpoold_barrier_global()
        let started = cpoold_load(page + 1)
        if !interrupt {
            // What has begun is to run on: a signal for another reason must not interrupt it.
            number = first
            while number <= min(last, started) {
                cpoold_store(page + 64 + Int(number & 63), 0)
                number += 1
            }
        }
        if first == last && started >= first && cpoold_load(page + 2) == first && entry.pidDescriptor >= 0 {
            noteOverrun(pool, worker, first)
            let isAsked = askForOverrun(pool, worker, first)
            if interrupt || isAsked { _ = cpoold_pidfd_signal(entry.pidDescriptor, SIGUSR1) }
        }
        feed(pool, .workerRevoked(worker, first: first, last: last, started: started))
    }

    mutating func signal(_ pool: Int, _ worker: WorkerID, _ signal: Int32, group: Bool) {
        let entry = pools[pool].workers[Int(worker.slot)]
        guard entry.generation == worker.generation, entry.pid > 0 else { return }
        // Not reaped yet, so the number cannot be another's.
        if group { Glibc.kill(-entry.pid, signal) }
        if entry.pidDescriptor >= 0 { _ = cpoold_pidfd_signal(entry.pidDescriptor, signal) }
    }
}
