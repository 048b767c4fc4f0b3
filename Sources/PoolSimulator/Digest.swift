import PoolCore

/// FNV-1a over the fields of effects in their order: equal in every process and on every machine.
struct Digest {
    private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

    mutating func add(_ number: UInt64) { value = (value ^ number) &* 0x100_0000_01b3 ^ (value >> 29) }
    private mutating func add(_ call: CallID) { add(UInt64(call.index) << 32 | UInt64(call.generation)) }
    private mutating func add(_ worker: WorkerID) { add(UInt64(worker.slot) << 32 | UInt64(worker.generation)) }

    mutating func add(_ effect: Effect) {
        switch effect {
        case .admit(let call):
            add(1)
            add(call)
        case .refuse(let refusal):
            add(2 + UInt64(refusal.reason.rawValue) << 8)
            add(refusal.predictedWait)
            add(refusal.retryAfter)
        case .send(let call, let worker, let number, let deadline):
            add(3)
            add(call)
            add(worker)
            add(number)
            add(deadline.nanoseconds)
        case .deliver(let call):
            add(4)
            add(call)
        case .finish(let call, let outcome):
            add(5 + UInt64(outcome.rawValue) << 8)
            add(call)
        case .release(let call):
            add(6)
            add(call)
        case .blame(let call, let method):
            add(7 + UInt64(method.index) << 8)
            add(call)
        case .revoke(let worker, let number, let interrupt):
            add(interrupt ? 8 : 9)
            add(worker)
            add(number)
        case .takeBack(let worker, let first, let last):
            add(10)
            add(worker)
            add(first)
            add(last)
        case .spawn(let worker):
            add(11)
            add(worker)
        case .ping(let worker):
            add(12)
            add(worker)
        case .drainWorker(let worker):
            add(13)
            add(worker)
        case .terminate(let worker):
            add(14)
            add(worker)
        case .kill(let worker):
            add(15)
            add(worker)
        case .measure(let worker):
            add(16)
            add(worker)
        case .publish(let notice): add(notice)
        case .stopped: add(18)
        }
    }

    private mutating func add(_ notice: Notice) {
        switch notice {
        case .worker(let worker, let phase, let cause):
            add(20 + UInt64(phase.rawValue) << 8 + UInt64(cause.rawValue) << 16)
            add(worker)
        case .poolHealth(let health): add(21 + UInt64(health.rawValue) << 8)
        case .circuit(let state): add(22 + UInt64(state.rawValue) << 8)
        case .quarantined(let method, let hash):
            add(23 + UInt64(method.index) << 8)
            add(hash)
        case .scaled(let from, let to):
            add(24 + UInt64(from) << 8)
            add(UInt64(to))
        case .pageScribbled(let worker):
            add(25)
            add(worker)
        case .backingOff(let span):
            add(26)
            add(span)
        case .callRetried(let call, let attempt):
            add(27 + UInt64(attempt) << 8)
            add(call)
        case .takenBack(let worker, let calls):
            add(28 + UInt64(calls) << 8)
            add(worker)
        case .killWithheld(let worker):
            add(29)
            add(worker)
        }
    }
}
