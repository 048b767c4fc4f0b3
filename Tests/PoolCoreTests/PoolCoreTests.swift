import Testing

@testable import PoolCore

/// Drives one machine by hand: effects of each event are compared whole.
struct Bench: ~Copyable {
    var machine: PoolMachine
    var buffer = EffectBuffer()
    var now = Instant(nanoseconds: 1_000_000_000_000)

    init(_ change: (inout PoolPolicy) -> Void = { _ in }) {
        var policy = PoolPolicy()
        policy.workers = 1
        policy.healthInterval = 0
        change(&policy)
        machine = PoolMachine(policy: policy, seed: 1)
    }

    mutating func apply(_ event: Event, after span: Nanoseconds = 0) -> [Effect] {
        now = now + span
        buffer.removeAll()
        machine.handle(event, now: now, into: &buffer)
        return buffer.effects.filter { if case .publish = $0 { return false } else { return true } }
    }

    mutating func start(_ count: Int = 1) {
        _ = apply(.timer)
        for slot in 0..<count {
            _ = apply(.workerSpawned(WorkerID(slot: UInt16(slot), generation: 1)))
            _ = apply(.workerReady(WorkerID(slot: UInt16(slot), generation: 1)))
        }
    }

    mutating func arrive(budget: Nanoseconds = 0, idempotent: Bool = false) -> [Effect] {
        apply(
            .callArrived(
                Arrival(
                    identity: IdentityID(index: 0), method: MethodID(index: 0), idempotent: idempotent, budget: budget))
        )
    }
}

let first = WorkerID(slot: 0, generation: 1)
func call(_ index: UInt32, _ generation: UInt32 = 0) -> CallID { CallID(index: index, generation: generation) }

@Suite struct PoolMachineTests {
    @Test func callIsSentAndItsReplyDelivered() {
        var bench = Bench()
        bench.start()
        let sent = bench.arrive(budget: 1_000_000_000)
        let deadline = bench.now + 1_000_000_000
        #expect(sent == [.admit(call(0)), .send(call(0), to: first, number: 1, deadline: deadline)])
        let replied = bench.apply(.workerReplied(first, number: 1, kind: .result, ran: 1000), after: 5000)
        #expect(replied == [.deliver(call(0))])
        let next = bench.arrive()
        #expect(next.first == .admit(call(0, 1)))
    }

    @Test func waitingCallExpiresUnbegun() {
        var bench = Bench()
        bench.start()
        _ = bench.arrive()
        #expect(bench.arrive(budget: 10_000_000) == [.admit(call(1))])
        let expired = bench.apply(.timer, after: 12_000_000)
        #expect(expired == [.finish(call(1), .timeoutWaiting)])
    }

    @Test func runningCallIsRevokedAndTheWorkerKept() {
        var bench = Bench()
        bench.start()
        _ = bench.arrive(budget: 10_000_000)
        #expect(bench.apply(.timer, after: 12_000_000) == [.revoke(first, number: 1, interrupt: true)])
        #expect(bench.apply(.workerRevoked(first, first: 1, last: 1, started: 1)) == [.finish(call(0), .timeoutRunning)])
        #expect(bench.apply(.workerReplied(first, number: 1, kind: .interrupted, ran: 5), after: 10) == [])
        #expect(bench.arrive().count == 2)
    }

    @Test func deathEndsBegunCallsAndRequeuesTheOthersInOrder() {
        var bench = Bench {
            $0.workers = 1
            $0.window = 4
        }
        bench.start()
        for number in 1...10 {
            _ = bench.arrive()
            _ = bench.apply(.workerReplied(first, number: UInt64(number), kind: .result, ran: 5_000), after: 6_000)
        }
        let names = (0..<3).map { _ in bench.arrive() }.compactMap { $0.first }
        #expect(names.count == 3)
        let ends = bench.apply(.workerExited(first, started: 11, running: 11, cause: .signal(9)))
        guard case .admit(let begun) = names[0] else { return }
        #expect(ends.prefix(2) == [.blame(begun, method: MethodID(index: 0)), .finish(begun, .workerLost)])
        #expect(ends.last == .spawn(WorkerID(slot: 0, generation: 2)))
        _ = bench.apply(.workerSpawned(WorkerID(slot: 0, generation: 2)))
        let served = bench.apply(.workerReady(WorkerID(slot: 0, generation: 2)))
        let order = served.compactMap { effect -> CallID? in
            if case .send(let call, _, _, _) = effect { return call } else { return nil }
        }
        #expect(names.dropFirst().map { $0 } == order.map { .admit($0) })
    }

    @Test func stateSurvivesBytes() throws {
        var bench = Bench { $0.workers = 2 }
        bench.start(2)
        for _ in 0..<9 { _ = bench.arrive() }
        let bytes = bench.machine.encoded()
        bench.machine = try PoolMachine.decoded(bytes)
        let again = bench.machine.encoded()
        #expect(again == bytes)
        var damaged = bytes
        damaged[40] ^= 1
        #expect(throws: StateCodingError.self) { _ = try PoolMachine.decoded(damaged).nextDeadline }
    }
}

@Suite struct TimerWheelTests {
    @Test func firesInOrderAndNeverEarly() {
        var random = RandomSource(state: 7)
        for _ in 0..<200 {
            var wheel = TimerWheel(nodes: 64)
            var now = Instant(nanoseconds: random.next() % (1 << 50))
            _ = wheel.expire(now: now)
            var due: [Int: Instant] = [:]
            for node in 0..<64 {
                let at = now + random.next() % (UInt64(1) << (random.next() % 48))
                wheel.arm(node, at: at)
                due[node] = at
            }
            for node in 0..<64 where random.next() % 4 == 0 {
                wheel.disarm(node)
                due[node] = nil
            }
            while let next = wheel.nextDeadline {
                now = max(now, next)
                while let node = wheel.expire(now: now) {
                    #expect(due[node]! <= now)
                    due[node] = nil
                }
                for at in due.values { #expect(at.nanoseconds + (1 << 20) > now.nanoseconds) }
            }
            #expect(due.isEmpty)
        }
    }
}
