import Testing

@testable import PoolCore

/// A queue with its table: calls are told apart by their `session`.
struct QueueBench {
    var table = CallTable(bound: 10_000)
    var queue = FairQueue()
    var times = ServiceTimes()

    mutating func push(_ name: UInt64, identity: UInt16 = 0, priority: Priority = .normal, cost: Nanoseconds = 1_000_000) {
        let index = table.allocate()
        table.records[index].place = .queued
        table.records[index].session = name
        table.records[index].identity = identity
        table.records[index].priority = priority
        table.records[index].cost = cost
        table.records[index].method = identity
        times.record(identity, ran: cost, elapsed: cost)
        table.records[index].bodyBytes = 10
        queue.pushBack(index, &table)
    }

    mutating func pop(newest: Bool = false) -> UInt64? {
        guard let index = queue.pop(newest: newest, &table, times) else { return nil }
        let name = table.records[index].session
        table.free(index)
        return name
    }
}

@Suite struct FairQueueTests {
    @Test func firstComeFirstServedWithinAFlow() {
        var bench = QueueBench()
        for name in 1...5 { bench.push(UInt64(name)) }
        #expect((1...6).map { _ in bench.pop() } == [1, 2, 3, 4, 5, nil])
        #expect(bench.queue.bytes == 0 && bench.queue.work == 0 && bench.queue.count == 0)
    }

    @Test func newestFirstTakesTheYoungest() {
        var bench = QueueBench()
        for name in 1...3 { bench.push(UInt64(name)) }
        #expect(bench.pop(newest: true) == 3)
    }

    @Test func oneIdentityAgainstAHundredTimesTheCalls() {
        var bench = QueueBench()
        for name in 0..<1000 { bench.push(UInt64(name), identity: 1) }
        for name in 5000..<5100 { bench.push(UInt64(name), identity: 2) }
        var second = 0
        for _ in 0..<200 { if (bench.pop() ?? 0) >= 5000 { second += 1 } }
        #expect((99...101).contains(second))
    }

    @Test func timeIsSharedNotCalls() {
        var bench = QueueBench()
        for name in 0..<1000 { bench.push(UInt64(name), identity: 1, cost: 1_000_000) }
        for name in 5000..<5100 { bench.push(UInt64(name), identity: 2, cost: 10_000_000) }
        var slow = 0
        for _ in 0..<220 { if (bench.pop() ?? 0) >= 5000 { slow += 1 } }
        #expect((19...21).contains(slow), "\(slow)")
    }

    @Test func anIdleIdentitySavesNothingUp() {
        var bench = QueueBench()
        for name in 0..<500 { bench.push(UInt64(name), identity: 1) }
        for _ in 0..<400 { _ = bench.pop() }
        for name in 5000..<5400 { bench.push(UInt64(name), identity: 2) }
        var second = 0
        for _ in 0..<100 { if (bench.pop() ?? 0) >= 5000 { second += 1 } }
        #expect((49...51).contains(second), "\(second)")
    }

    @Test func higherClassesGoFirstAndLowerOnesAreNotStarved() {
        var bench = QueueBench()
        for name in 0..<100 { bench.push(UInt64(name), priority: .high) }
        for name in 1000..<1010 { bench.push(UInt64(name), priority: .normal) }
        for name in 2000..<2010 { bench.push(UInt64(name), priority: .low) }
        let order = (0..<120).compactMap { _ in bench.pop() }
        #expect(order[0..<16].allSatisfy { $0 < 100 })
        let low = order.prefix(60).filter { $0 >= 2000 }.count
        let normal = order.prefix(60).filter { (1000..<2000).contains($0) }.count
        #expect(low >= 2 && normal >= 2, "normal \(normal), low \(low) of 60")
        #expect(order.count == 120)
    }

    @Test func removalKeepsTheRest() {
        var random = RandomSource(state: 3)
        for _ in 0..<100 {
            var bench = QueueBench()
            for name in 0..<60 { bench.push(UInt64(name), identity: UInt16(random.next() % 5), priority: Priority.allCases[Int(random.next() % 3)]) }
            var removed = Set<UInt64>()
            for index in 0..<60 where random.next() % 3 == 0 {
                removed.insert(bench.table.records[index].session)
                bench.queue.remove(index, &bench.table)
            }
            var left = Set<UInt64>()
            while let name = bench.pop() { left.insert(name) }
            #expect(left.isDisjoint(with: removed) && left.count + removed.count == 60)
            #expect(bench.queue.work == 0 && bench.queue.bytes == 0)
        }
    }
}

@Suite struct ServiceTimesTests {
    @Test func steadyMethodsAreTrustedAndVaryingOnesAreNot() throws {
        var times = ServiceTimes()
        #expect(times.bound(0) == nil && times.cost(0) == 0)
        for _ in 0..<200 { times.record(0, ran: 50_000, elapsed: 54_000) }
        let steady = try #require(times.bound(0))
        #expect((50_000...70_000).contains(steady), "\(steady)")
        for call in 0..<500 { times.record(1, ran: call % 10 == 0 ? 20_000_000 : 50_000, elapsed: 60_000) }
        let varying = try #require(times.bound(1))
        #expect(varying > 1_000_000, "\(varying)")
        #expect(times.least(1) == 0)
    }

    @Test func oneOutlierDoesNotLookLikeASlowMethod() throws {
        var times = ServiceTimes()
        for _ in 0..<200 { times.record(0, ran: 5_000, elapsed: 7_000) }
        times.record(0, ran: 4_000_000, elapsed: 4_000_000)
        let bound = try #require(times.bound(0))
        #expect(bound < 1_000_000, "\(bound)")
    }
}

/// A call is refused for its predicted wait as soon as there is evidence, and no longer than there is.
@Suite struct PredictionTests {
    private static let second: Nanoseconds = 1_000_000_000

    private func bench(_ configure: (inout PoolPolicy) -> Void = { _ in }) -> Bench {
        var bench = Bench {
            $0.workers = 1
            $0.window = 1
            configure(&$0)
        }
        bench.start()
        return bench
    }

    private func run(_ bench: inout Bench, _ number: UInt64, _ span: Nanoseconds) {
        _ = bench.apply(.workerReplied(PoolCoreTests.first, number: number, kind: .result, ran: span), after: span)
    }

    private func refusal(_ effects: [Effect]) -> Refusal? {
        guard case .refuse(let refusal) = effects.first else { return nil }
        return refusal
    }

    @Test func aSlowFirstCallStandsForTheOthersOnlyUntilOneOfThemIsMeasured() {
        var bench = bench()
        _ = bench.arrive()
        run(&bench, 1, 20 * Self.second)
        _ = bench.arrive()
        let first = refusal(bench.arrive(budget: Self.second))
        #expect(first?.reason == .wouldExpire && first?.predictedWait == 20 * Self.second)
        run(&bench, 2, 20_000_000)
        _ = bench.arrive()
        #expect(refusal(bench.arrive(budget: Self.second)) == nil)
        for number in 3...4 { run(&bench, UInt64(number), 20_000_000) }
        #expect(bench.machine.times.cost(0) == 20_000_000)
    }

    @Test func whereWorkersGetFewCallsFirstOnesCountAsAnyOther() {
        var bench = bench { $0.maximumCalls = 2 }
        _ = bench.arrive()
        run(&bench, 1, 20 * Self.second)
        _ = bench.arrive()
        run(&bench, 2, 10 * Self.second)
        #expect(bench.machine.times.cost(0) == 15 * Self.second)
    }

    @Test func whatWaitsIsAppraisedAnew() {
        var bench = bench()
        for _ in 0..<6 { _ = bench.arrive(budget: 1000 * Self.second) }
        #expect(bench.machine.predictedWait(identity: 0, priority: .normal) == 0, "nothing is known")
        run(&bench, 1, 20 * Self.second)
        #expect(bench.machine.predictedWait(identity: 0, priority: .normal) == 100 * Self.second)
        run(&bench, 2, 20_000_000)
        let left = bench.machine.predictedWait(identity: 0, priority: .normal)
        #expect(left == 3 * 20_000_000 + 20_000_000, "\(left): three wait, one runs")
        for number in 3...6 { run(&bench, UInt64(number), 20_000_000) }
        #expect(bench.machine.predictedWait(identity: 0, priority: .normal) == 0)
        #expect(bench.machine.queue.work == 0)
    }

    /// Other methods keep the worker busy: without a probe no call of this one would ever be measured again.
    @Test(arguments: [1, 20]) func aMethodThatBecameFasterIsFoundOutWhileThePoolIsBusy(slow: Int) {
        var bench = bench()
        var number: UInt64 = 0
        func arrival(_ method: UInt16, budget: Nanoseconds) -> Event {
            .callArrived(Arrival(identity: IdentityID(index: 0), method: MethodID(index: method), budget: budget))
        }
        func reply(_ bench: inout Bench, _ kind: ReplyKind, _ span: Nanoseconds) {
            number += 1
            _ = bench.apply(.workerReplied(PoolCoreTests.first, number: number, kind: kind, ran: span), after: span)
        }
        for _ in 0..<10 {
            _ = bench.apply(arrival(1, budget: Self.second))
            reply(&bench, .result, 20_000_000)
        }
        for _ in 0..<slow {
            _ = bench.apply(arrival(0, budget: 10 * Self.second))
            reply(&bench, .result, 3 * Self.second)
        }
        // Busy for ever; a probe that comes to nothing, and in its time no other.
        _ = bench.apply(arrival(1, budget: Self.second))
        #expect(refusal(bench.apply(arrival(0, budget: 2 * Self.second))) == nil)
        reply(&bench, .result, 20_000_000)
        _ = bench.apply(arrival(1, budget: 9 * Self.second))
        reply(&bench, .interrupted, 2 * Self.second)
        let refused = refusal(bench.apply(arrival(0, budget: 2 * Self.second)))
        #expect(refused?.reason == .wouldExpire && (refused?.expectedRun ?? 0) >= 3 * Self.second)
        reply(&bench, .result, 20_000_000)
        // Later another one, and all others after it.
        _ = bench.apply(arrival(1, budget: Self.second), after: 60 * Self.second)
        #expect(refusal(bench.apply(arrival(0, budget: 2 * Self.second))) == nil)
        reply(&bench, .result, 20_000_000)
        _ = bench.apply(arrival(1, budget: 9 * Self.second))
        reply(&bench, .result, 1_000_000)
        #expect(bench.machine.times.cost(0) == 1_000_000)
        for _ in 0..<3 { #expect(refusal(bench.apply(arrival(0, budget: 2 * Self.second))) == nil) }
    }

    @Test func whatLostItsTimeByWaitingIsNotBegun() {
        var bench = bench()
        for number in 1...20 {
            _ = bench.arrive(budget: 100 * Self.second)
            run(&bench, UInt64(number), 10 * Self.second)
        }
        _ = bench.arrive(budget: 100 * Self.second)
        _ = bench.arrive(budget: 21 * Self.second)
        run(&bench, 21, 14 * Self.second)
        #expect(bench.machine.counters.results == 21)
        #expect(bench.machine.queue.count == 0 && bench.machine.outstandingWork == 0)
    }
}

/// The limits are of what waits: an idle worker's call is none of that.
@Suite struct NoQueueTests {
    private func arrival(session: UInt64 = 0, bytes: UInt32 = 0, target: WorkerID = .none) -> Arrival {
        Arrival(identity: IdentityID(index: 0), method: MethodID(index: 0), session: session, budget: 1_000_000_000, bodyBytes: bytes, target: target)
    }

    private func isAdmitted(_ effects: [Effect]) -> Bool { effects.first == .admit(call(0)) && effects.count == 2 }

    @Test func sessionsAndTargetsNeedNoQueueWhereNothingWaits() {
        for (first, second) in [(arrival(session: 7), arrival(session: 7)), (arrival(target: PoolCoreTests.first), arrival(target: PoolCoreTests.first))] {
            var bench = Bench {
                $0.affinity = .require
                $0.maximumQueuedCalls = 0
                $0.window = 1
            }
            bench.start()
            #expect(isAdmitted(bench.apply(.callArrived(first))))
            guard case .refuse(let refusal) = bench.apply(.callArrived(second)).first else { return #expect(Bool(false), "it would have to wait") }
            #expect(refusal.reason == .queueFull)
        }
    }

    @Test func aLargeBodyThatNeedNotWaitIsTaken() {
        var bench = Bench {
            $0.affinity = .require
            $0.maximumQueuedBytesPerIdentity = 10
        }
        bench.start()
        #expect(isAdmitted(bench.apply(.callArrived(arrival(session: 7, bytes: 1000)))))
    }
}

@Suite struct RandomSourceTests {
    @Test func smallValuesVaryToo() {
        var random = RandomSource(state: 1)
        let values = Set((0..<200).map { _ in random.jitter(50, percent: 50) })
        #expect(values.min() == 25 && values.max() == 75)
        #expect(random.jitter(.max, percent: 0) == .max)
        _ = random.jitter(.max / 2, percent: 90)
    }
}
