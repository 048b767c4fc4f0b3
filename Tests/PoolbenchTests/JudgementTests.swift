import Glibc
import PoolProtocol
import PoolWire
import Testing

@testable import poolbench

/// What the chaos run calls a violation, each proved by made-up samples: a detector that was never seen to fire proves nothing.
struct DisturbanceTests {
    private let second: UInt64 = 1_000_000_000

    private func call(_ pool: ChaosPool, _ work: Character = "e", budget: UInt64 = 5, issued: UInt64, ended: UInt64) -> JudgedCall {
        JudgedCall(pool: pool, work: work.asciiValue!, session: 0, budget: budget * second, issued: issued, ended: ended, wasCancelled: false)
    }

    @Test func aFaultExplainsItsPoolUntilItIsWhole() {
        let disturbances = Disturbances()
        disturbances.add(.kills, pool: .echo, seconds: 0, now: 10 * second)
        #expect(!disturbances.isAtPeace(.echo))
        #expect(disturbances.isAtPeace(.cpu))
        // Before poold can have noticed: it does not count.
        disturbances.observe(whole: [.echo], askedAt: 10 * second + 1)
        #expect(disturbances.isAnyAtWork)
        disturbances.observe(whole: [.cpu], askedAt: 14 * second)
        #expect(disturbances.isAnyAtWork)
        disturbances.observe(whole: [.echo], askedAt: 14 * second)
        #expect(!disturbances.isAnyAtWork)
        func explained(_ status: Status, _ pool: ChaosPool, _ issued: UInt64, _ ended: UInt64) -> Explanation {
            disturbances.explains(status, call(pool, issued: issued * second, ended: ended * second)) { false }
        }
        for status in [Status.workerLost, .overloaded, .timeoutWaiting, .timeoutRunning] {
            #expect(explained(status, .echo, 9, 11) == .fault)
            #expect(explained(status, .echo, 13, 18) == .fault)
            #expect(explained(status, .echo, 15, 18) == .nothing)
            #expect(explained(status, .echo, 5, 9) == .nothing)
            #expect(explained(status, .cpu, 9, 11) == .nothing)
        }
        #expect(explained(.draining, .echo, 9, 11) == .nothing)
        #expect(explained(.internal, .echo, 9, 11) == .nothing)
        #expect(explained(.applicationError, .echo, 9, 11) == .nothing)
        #expect(explained(.cancelled, .echo, 9, 11) == .nothing)
        #expect(explained(.quarantined, .echo, 9, 11) == .nothing)
    }

    @Test func aBusyMachineExplainsWaitingAndNothingElse() {
        let disturbances = Disturbances()
        let some = call(.echo, issued: second, ended: 2 * second)
        #expect(disturbances.explains(.overloaded, some) { true } == .busyMachine)
        #expect(disturbances.explains(.timeoutRunning, some) { true } == .busyMachine)
        #expect(disturbances.explains(.workerLost, some) { true } == .nothing)
        #expect(disturbances.explains(.poolUnavailable, some) { true } == .nothing)
        #expect(disturbances.explains(.timeoutRunning, call(.wild, "Z", budget: 0, issued: second, ended: 2 * second)) { false } == .asked)
        #expect(disturbances.explains(.overloaded, call(.echo, budget: 0, issued: second, ended: 2 * second)) { false } == .shortBudget)
    }

    @Test func busyIsByIdleTicksOrByWaiting() {
        let first = MachineLoad.Sample(time: 0, ticks: 0, idle: 0, waited: [0, 0])
        #expect(!MachineLoad.isBusy(from: first, to: .init(time: second, ticks: 200, idle: 100, waited: [0, 50_000_000])))
        #expect(MachineLoad.isBusy(from: first, to: .init(time: second, ticks: 200, idle: 20, waited: [0, 0])))
        #expect(MachineLoad.isBusy(from: first, to: .init(time: second, ticks: 200, idle: 150, waited: [150_000_000, 0])))
    }

    @Test func sharesInPeaceAreBounded() {
        var pools = Array(repeating: CallTally.PoolTally(), count: ChaosPool.allCases.count)
        pools[0].madeInPeace = 100_000
        pools[0].overloadedInPeace = 100
        pools[0].timeoutsInPeace = 10
        #expect(PeaceBounds.problems(pools).isEmpty)
        pools[0].overloadedInPeace = 101
        #expect(PeaceBounds.problems(pools).count == 1)
        pools[0].timeoutsInPeace = 11
        pools[0].shortInPeace = 11
        #expect(PeaceBounds.problems(pools).count == 3)
        pools[1].madeInPeace = 10
        pools[1].overloadedInPeace = 10
        #expect(PeaceBounds.problems(pools).count == 3)
    }
}

struct MemoryTrendTests {
    /// Every five seconds of five minutes, with a noise that always is the same.
    private func samples(_ seconds: Int = 300, each: Int = 5, _ value: (Double) -> Double) -> [(seconds: Double, kibibytes: Double)] {
        var random = ChaosRandom(seed: 7)
        return stride(from: 0, to: seconds, by: each).map { (Double($0), value(Double($0)) + 600 * random.unit()) }
    }

    @Test func growthIsSeenAndNoiseIsNot() throws {
        #expect(try #require(MemoryTrend(samples { _ in 40_000 })).problem == nil)
        // 100 bytes of each of 2,000 calls a second.
        let leak = try #require(MemoryTrend(samples { 40_000 + 195 * $0 }))
        #expect(leak.problem != nil)
        #expect(abs(leak.slope - 195) < 20)
        // 20 bytes of each, in an hour.
        #expect(try #require(MemoryTrend(samples(3600, each: 10) { 40_000 + 39 * $0 })).problem != nil)
    }

    @Test func whatFillsAndThenStaysIsNoGrowth() throws {
        #expect(try #require(MemoryTrend(samples { 40_000 + 200 * min($0, 140) })).problem == nil)
        // Single samples may be anything.
        #expect(try #require(MemoryTrend(samples { Int($0) % 35 == 0 ? 90_000 : 40_000 })).problem == nil)
    }

    @Test func shortRunsAreNotJudged() {
        #expect(MemoryTrend(samples(60, each: 1) { _ in 40_000 }) == nil)
        #expect(MemoryTrend(samples(300, each: 10) { _ in 40_000 }) == nil)
        #expect(MemoryTrend([]) == nil)
        // The runs that are: in the pipeline, and the long one.
        for seconds in [150.0, 300, 3600] {
            let interval = MemoryTrend.interval(seconds: seconds)
            let points = stride(from: 0, to: seconds, by: interval).map { (seconds: $0, kibibytes: 40_000.0) }
            #expect(MemoryTrend(points) != nil)
        }
    }
}

struct RestTests {
    @Test func whatIsLeftIsNamed() {
        var before = ChaosState()
        (before.processes, before.descriptors, before.descriptorKinds) = (20, 100, ["pipe:[]": 40, "socket:[]": 60])
        #expect(before.problems(since: before).isEmpty)
        var after = before
        after.processes = 21
        after.names = ["17 python3"]
        (after.descriptors, after.descriptorKinds["socket:[]"]) = (101, 61)
        after.zombies = 1
        let problems = after.problems(since: before)
        #expect(problems.count == 3)
        #expect(problems[0].contains("17 python3"))
        #expect(problems[1].contains("socket:[] 60 → 61"))
    }

    @Test func aChildThatNobodyReapsIsCounted() throws {
        let before = ProcessCensus(marker: "none", poold: getpid()).zombies
        var pid: pid_t = 0
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
        defer { free(arguments[0]) }
        #expect(posix_spawn(&pid, "/bin/true", nil, nil, &arguments, environ) == 0)
        var information = siginfo_t()
        #expect(waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT) == 0)
        #expect(ProcessCensus(marker: "none", poold: getpid()).zombies >= before + 1)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
    }

    @Test func countersThatDisagree() {
        var counted = Poold_V1_Counters()
        (counted.arrived, counted.results, counted.refused) = (10, 8, 2)
        var ours = CallTally.PoolTally()
        (ours.issued, ours.results, ours.refused) = (10, 8, 2)
        #expect(ChaosRun.problems(.echo, counted, ours).isEmpty)
        ours.issued = 11
        #expect(ChaosRun.problems(.echo, counted, ours).count == 1)
        // Its caller may be gone when a result comes, but a result that it has was counted.
        ours = CallTally.PoolTally()
        (ours.issued, ours.results) = (10, 7)
        #expect(ChaosRun.problems(.echo, counted, ours).count == 1)
        ours.closed = 1
        #expect(ChaosRun.problems(.echo, counted, ours).isEmpty)
        counted.arrived = 11
        #expect(ChaosRun.problems(.wild, counted, ours).count == 1)
    }
}

struct JournalTests {
    /// Each line: the number of a call that began.
    private func problems(of calls: [(runs: Int, idempotent: Bool, told: String)], strange: Int? = nil) throws -> [String] {
        let path = "/tmp/poolbench-journal-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        var journal = ChaosJournal(path: path)
        var bytes: [UInt8] = []
        for call in calls {
            let number = journal.add(idempotent: call.idempotent)
            switch call.told {
            case "result": journal.endedWithResult(number)
            case "not begun": journal.endedWithError(number, notBegun: true)
            case "maybe": journal.endedWithError(number, notBegun: false)
            default: break
            }
            for _ in 0..<call.runs { bytes += [0, 0, 0, UInt8(number), 0, 0, 0, 1] }
        }
        if let strange { bytes += [0, 0, 0, UInt8(strange), 0, 0, 0, 1] }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        #expect(descriptor >= 0)
        #expect(bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) } == bytes.count)
        close(descriptor)
        defer { unlink(path) }
        return journal.verify()
    }

    @Test func contradictions() throws {
        #expect(try problems(of: [(1, false, "result"), (2, true, "result"), (0, false, "not begun"), (1, false, "maybe"), (0, false, "maybe")]).isEmpty)
        #expect(try problems(of: [(2, false, "result")])[0].contains("ran 2 times"))
        #expect(try problems(of: [(1, true, "not begun")])[0].contains("did not begin"))
        #expect(try problems(of: [(0, false, "result")])[0].contains("never ran"))
        #expect(try problems(of: [(1, false, "result")], strange: 9)[0].contains("never made"))
    }
}

struct MedianIntervalTests {
    @Test func orderStatisticsOfTheSignTest() throws {
        // Tables of the sign test: 20 pairs, the 6th and the 15th; 40 pairs, the 14th and the 27th.
        let twenty = try #require(Report.medianInterval((1...20).map(Double.init).shuffled()))
        #expect(twenty == (6, 15))
        let forty = try #require(Report.medianInterval((1...40).map(Double.init)))
        #expect(forty == (14, 27))
        let six = try #require(Report.medianInterval((1...6).map(Double.init)))
        #expect(six == (1, 6))
        #expect(Report.medianInterval((1...5).map(Double.init)) == nil)
    }
}
