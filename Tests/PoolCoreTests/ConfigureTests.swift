import Testing

@testable import PoolCore

/// Another policy while the pool runs: what the simulator found.
@Suite struct ConfigureTests {
    private static let millisecond: Nanoseconds = 1_000_000
    private static let second: Nanoseconds = 1_000_000_000
    private let other = WorkerID(slot: 1, generation: 1)

    private func arrival(session: UInt64 = 0, hash: UInt64 = 0) -> Arrival {
        Arrival(identity: IdentityID(index: 0), method: MethodID(index: 0), session: session, budget: Self.second, bodyHash: hash)
    }

    @Test func callsThatWaitedForTheirSessionsWorkerGoAnywhereWithoutAffinity() {
        var bench = Bench {
            $0.workers = 2
            $0.window = 1
            $0.affinity = .require
        }
        bench.start(2)
        guard case .send(_, let owner, _, _) = bench.apply(.callArrived(arrival(session: 7))).last else { return #expect(Bool(false)) }
        for index in 1...2 { #expect(bench.apply(.callArrived(arrival(session: 7))) == [.admit(call(UInt32(index)))]) }
        let effects = bench.configure { $0.affinity = .none }
        let free = owner == first ? other : first
        #expect(effects == [.send(call(1), to: free, number: 1, deadline: bench.now + Self.second)])
        // The other keeps its place in the queue.
        let next = bench.apply(.workerReplied(owner, number: 1, kind: .result, ran: 1000))
        #expect(next == [.deliver(call(0)), .send(call(2), to: owner, number: 2, deadline: bench.now + Self.second)])
    }

    @Test func sessionsThatWereHeldExpireAfterAffinityIsLoosened() {
        var bench = Bench {
            $0.affinity = .require
            $0.sessionTimeToLive = Self.second
        }
        bench.start()
        _ = bench.apply(.callArrived(arrival(session: 7)))
        _ = bench.configure { $0.affinity = .prefer }
        _ = bench.apply(.workerReplied(first, number: 1, kind: .result, ran: 1000))
        #expect(bench.machine.status(now: bench.now).sessions == 1)
        _ = bench.apply(.timer, after: 2 * Self.second)
        #expect(bench.machine.status(now: bench.now).sessions == 0)
    }

    @Test func withoutQuarantineNothingStaysInIt() {
        var bench = Bench { $0.quarantineDeaths = 2 }
        bench.start()
        for _ in 0..<2 { _ = bench.apply(.callBlamed(method: MethodID(index: 0), hash: 99)) }
        let before = bench.machine.wantsBodyHash
        _ = bench.configure { $0.quarantineDeaths = 0 }
        let after = bench.machine.wantsBodyHash
        #expect(before && !after)
        #expect(bench.apply(.callArrived(arrival(hash: 99))).first == .admit(call(0)))
    }

    /// A call outruns its budget and does not return; the effects of its worker's `hang` timer.
    private func hang(_ bench: inout Bench) -> [Effect] {
        _ = bench.apply(.callArrived(arrival()))
        guard case .revoke(let worker, let number, _) = bench.apply(.timer, after: 2 * Self.second).first else { return [] }
        _ = bench.apply(.workerRevoked(worker, first: number, last: number, started: number))
        return bench.apply(.timer, after: 6 * Self.second)
    }

    private func terminates(_ effects: [Effect]) -> Bool { effects.contains { if case .terminate = $0 { true } else { false } } }

    @Test func aLowerRefillOfKillsForgetsTheOldDebt() {
        var bench = Bench {
            $0.workers = 2
            $0.window = 1
            $0.killAllowance = 1
            $0.killRefill = 3600 * Self.second
        }
        bench.start(2)
        #expect(terminates(hang(&bench)))
        #expect(!terminates(hang(&bench)))
        _ = bench.configure { $0.killRefill = 2 * Self.millisecond }
        // It was put off for an hour; that span was the old policy's.
        #expect(terminates(bench.apply(.timer, after: 6 * Self.second)))
    }

    @Test func aWithheldKillIsDoneWhenMoreAreAllowed() {
        var bench = Bench {
            $0.workers = 2
            $0.window = 1
            $0.killAllowance = 1
            $0.killRefill = 3600 * Self.second
        }
        bench.start(2)
        #expect(terminates(hang(&bench)))
        #expect(!terminates(hang(&bench)))
        _ = bench.configure { $0.killAllowance = 10 }
        #expect(terminates(bench.apply(.timer, after: 6 * Self.second)))
    }

    @Test func anOpenCircuitTriesAsSoonAsANewSpanSays() {
        var bench = Bench {
            $0.circuitFailures = 1
            $0.circuitOpenFor = 86_400 * Self.second
        }
        bench.start()
        _ = bench.apply(.callArrived(arrival()))
        _ = bench.apply(.workerExited(first, started: 1, running: 1, cause: .signal(11)))
        #expect(bench.machine.status(now: bench.now).circuit == .open)
        _ = bench.configure { $0.circuitOpenFor = 10 * Self.second }
        _ = bench.apply(.timer, after: 11 * Self.second)
        #expect(bench.machine.status(now: bench.now).circuit == .halfOpen)
    }

    @Test func callsThatWereLetRunAreInterruptedAndTheirWorkersReplaced() {
        var bench = Bench { $0.overrun = .finish }
        bench.start()
        #expect(hang(&bench) == [])
        #expect(bench.configure { $0.overrun = .cancel } == [.revoke(first, number: 1, interrupt: true)])
        #expect(bench.apply(.timer, after: 6 * Self.second).first == .terminate(first))
    }

    @Test func healthChecksGoOnWhenTheyAreSwitchedOnAgain() {
        var bench = Bench {
            $0.healthInterval = Self.second
            $0.healthTimeout = Self.second
        }
        bench.start()
        #expect(bench.apply(.timer, after: 2 * Self.second) == [.ping(first)])
        _ = bench.configure { $0.healthInterval = 0 }
        #expect(bench.apply(.timer, after: 5 * Self.second) == [])
        _ = bench.configure { $0.healthInterval = Self.second }
        #expect(bench.apply(.timer, after: 2 * Self.second) == [.ping(first)])
    }
}

extension Bench {
    mutating func configure(_ change: (inout PoolPolicy) -> Void) -> [Effect] {
        var policy = machine.policy
        change(&policy)
        buffer.removeAll()
        machine.configure(policy, now: now, into: &buffer)
        return buffer.effects.filter { if case .publish = $0 { return false } else { return true } }
    }
}
