import CPoold
import Foundation
import PoolProtocol
import SwiftProtobuf

/// One run from the start of poold to the proof that nothing is left of it.
final class ChaosRun {
    static let warmUp = 5.0
    let seed: UInt64
    let seconds: Double
    let rate: Double
    let sabotage: Set<Sabotage>
    var keptDescriptor: Int32 = -1
    let board = ChaosBoard()
    let disturbances = Disturbances()
    let server: ChaosServer
    let load: ChaosLoad
    let operatorThread: ChaosOperator
    var baseline = ChaosState()
    var final = ChaosState()
    /// Seconds from SIGTERM to the end; and the exit status, nil: it had to be killed.
    var shutdownSeconds = 0.0
    var exitStatus: Int32?
    var survivors = 0
    var journalProblems = 0
    /// Seconds since the start of each process.
    var serverCPU = 0.0
    var ownCPU = 0.0
    var ownResidentKiB = 0
    /// Of the pools whose counters can be compared, poold's own numbers.
    var counters = Poold_V1_Counters()

    init(configuration: ChaosConfiguration, seed: UInt64, seconds: Double, rate: Double, sabotage: Set<Sabotage> = []) throws {
        self.seed = seed
        self.seconds = seconds
        self.rate = rate
        self.sabotage = sabotage
        server = try ChaosServer(configuration, marker: "\(seed)-\(getpid())")
        load = ChaosLoad(
            socket: configuration.socket, journal: server.journal, poold: server.pid, board: board, disturbances: disturbances, rate: rate, seed: seed)
        operatorThread = ChaosOperator(
            server: server, board: board, disturbances: disturbances, plan: FaultPlan.make(seed: seed, seconds: seconds), seconds: seconds)
    }

    func execute() throws {
        defer { if server.process.isRunning { _ = server.stop(limit: 5) } }
        // The first calls of a pool wait for its first workers.
        disturbances.add(.slows, pool: nil, seconds: Self.warmUp)
        try load.start()
        _ = load.run(seconds: Self.warmUp)
        load.settle(seconds: 15)
        baseline = settled { _ in true }

        load.sabotage = sabotage
        operatorThread.start()
        let isWhole = load.run(seconds: seconds)
        board.with { $0.isOver = true }
        _ = operatorThread.finished.wait(timeout: .now() + (isWhole ? 60 : 5))
        load.settle(seconds: 80)
        try sabotageRest()
        if isWhole { try comeToRest() }
        if !load.open.isEmpty { board.violation("lost: \(load.open.count) calls never ended") }
        if isWhole { compareCounters() }

        for problem in PeaceBounds.problems(load.tally.pools) { board.violation(problem) }
        if let problem = memory?.problem { board.violation(problem) }

        serverCPU = LoadGenerator.cpuSeconds(server.pid)
        ownCPU = LoadGenerator.cpuSeconds(getpid())
        ownResidentKiB = LoadGenerator.residentKiB(getpid())
        let before = cpoold_now()
        exitStatus = server.stop(limit: 30)
        shutdownSeconds = Double(cpoold_now() - before) / 1e9
        if exitStatus != 0 { board.violation("SIGTERM: poold ended with \(exitStatus.map { "status \($0)" } ?? "SIGKILL after 30 s"), not 0") }
        let left = leftovers()
        survivors = left.count
        for member in left {
            board.violation("process \(member.pid) (\(member.name)) outlived poold")
            kill(member.pid, SIGKILL)
        }
        let problems = load.journal.verify()
        journalProblems = problems.count
        for problem in problems.prefix(20) { board.violation(problem) }
    }

    /// Who outlived poold. What the kernel has killed may take a moment to be gone on a busy machine.
    private func leftovers() -> [ProcessCensus.Member] {
        var left: [ProcessCensus.Member] = []
        for _ in 0..<20 {
            usleep(250_000)
            left = ProcessCensus(marker: server.marker, poold: server.pid).members
            if left.isEmpty { break }
        }
        return left
    }

    // MARK: - The calm at the end

    /// Everything as it was: the first configuration, the first sizes, workers that have served no fault. Then the comparison.
    private func comeToRest() throws {
        var first = operatorThread.configuration
        first.echoQueue = server.configuration.echoQueue
        first.cpuPrefetch = server.configuration.cpuPrefetch
        first.hasExtra = true
        first.method = server.configuration.method
        try first.write()
        operatorThread.configuration = first
        if operatorThread.hasReload == true { _ = operatorThread.control(.reload) }
        for pool in ChaosPool.allCases {
            _ = operatorThread.operate(.resume, pool: pool)
            var request = Poold_V1_ScaleRequest()
            request.pool = pool.name
            request.workers = UInt32(pool.workers)
            _ = operatorThread.control(.scale, (try? request.serializedBytes()) ?? [])
        }
        load.idle(seconds: 3)
        for pool in ChaosPool.allCases { operatorThread.operate(.recycle, pool: pool) }
        load.idle(seconds: 2)
        let want = baseline
        final = settled { $0.processes == want.processes && $0.descriptors == want.descriptors }
        for problem in final.problems(since: want) { board.violation(problem) }
    }

    /// What poold holds once every pool has its workers and nothing changes any more, for at most 60 s; no longer than 10 s where it cannot.
    private func settled(_ isRight: (ChaosState) -> Bool) -> ChaosState {
        var state = ChaosState()
        let limit: UInt64 = sabotage.isEmpty ? 60 : 10
        let end = cpoold_now() + limit * 1_000_000_000
        while cpoold_now() < end {
            load.idle(seconds: 0.5)
            // After the load the operator's thread is over, before it has not begun: the connection is ours.
            guard operatorThread.refreshStatus() else { continue }
            let status = operatorThread.status
            let isReady = status.pools.allSatisfy(\.isWhole)
            let isComplete = status.pools.count == ChaosPool.allCases.count
            state = ChaosState(server: server, connections: Int(status.connections))
            if isReady && isComplete && state.connections == ChaosLoad.connectionCount && state.zombies == 0 && isRight(state) { return state }
        }
        let pools = operatorThread.status.pools.map { "\($0.name) \($0.health) \($0.workers.count)/\($0.wanted) template \($0.template)" }
        board.violation("poold did not come to rest within \(limit) s: \(state.connections) connections; \(pools.joined(separator: ", "))")
        return state
    }

    /// nil: too short a run to say.
    var memory: MemoryTrend? { MemoryTrend(board.with { $0.samples }.map { ($0.seconds, Double($0.residentKiB)) }) }

    // MARK: - Lossless counts

    private func compareCounters() {
        for message in operatorThread.status.pools {
            guard let pool = ChaosPool.of(message.name) else { continue }
            if pool.isCounted {
                counters.arrived += message.counters.arrived
                counters.results += message.counters.results
            }
            for problem in Self.problems(pool, message.counters, load.tally.pools[pool.rawValue]) { board.violation(problem) }
        }
    }

    /// poold's counters against themselves, and against our own for the pools that only we call and that live as long as the run.
    static func problems(_ pool: ChaosPool, _ counted: Poold_V1_Counters, _ ours: CallTally.PoolTally) -> [String] {
        var problems: [String] = []
        let ends =
            counted.refused + counted.results + counted.errors + counted.timeouts + counted.cancelled + counted.abandoned + counted.workerLost + counted.dropped
        if counted.arrived != ends { problems.append("pool \(pool): \(counted.arrived) calls arrived and \(ends) ended, by poold's own counters") }
        guard pool.isCounted else { return problems }
        // Warming commands are calls of poold's own, which it does not count as arrived.
        if counted.arrived != ours.issued { problems.append("pool \(pool): poold counted \(counted.arrived) calls, the client made \(ours.issued)") }
        // Replies to a connection that was being closed are counted there and not here.
        if counted.results < ours.results || counted.results > ours.results + ours.closed {
            problems.append(
                "pool \(pool): poold counted \(counted.results) results, the client has \(ours.results) and closed connections on \(ours.closed)")
        }
        return problems
    }
}

/// What poold holds at a moment of rest.
struct ChaosState {
    var descriptors = 0
    var connections = 0
    var processes = 0
    var zombies = 0
    var threads = 0
    var residentKiB = 0
    var privateMiB = 0
    var names: [String] = []
    var descriptorKinds: [String: Int] = [:]

    init() {}

    /// What is there now and was not before, or the other way round.
    func problems(since before: ChaosState) -> [String] {
        var problems: [String] = []
        if processes != before.processes {
            problems.append("\(processes) processes at the end, \(before.processes) at the beginning: \(names.joined(separator: ", "))")
        }
        if descriptors != before.descriptors {
            let kinds = Set(descriptorKinds.keys).union(before.descriptorKinds.keys).filter { descriptorKinds[$0] != before.descriptorKinds[$0] }
                .map { "\($0) \(before.descriptorKinds[$0] ?? 0) → \(descriptorKinds[$0] ?? 0)" }.sorted().joined(separator: ", ")
            problems.append("\(descriptors) descriptors of poold at the end, \(before.descriptors) at the beginning: \(kinds)")
        }
        if zombies > 0 { problems.append("\(zombies) children of poold were not reaped") }
        return problems
    }

    init(server: ChaosServer, connections: Int) {
        self.connections = connections
        let census = ProcessCensus(marker: server.marker, poold: server.pid)
        processes = census.members.count
        zombies = census.zombies
        names = census.members.map { "\($0.pid) \($0.name)" }
        descriptors = ProcessCensus.descriptors(server.pid)
        descriptorKinds = ProcessCensus.descriptorKinds(server.pid)
        threads = ProcessCensus.threads(server.pid)
        residentKiB = LoadGenerator.residentKiB(server.pid)
        privateMiB = Int(census.members.filter { $0.pid != server.pid }.reduce(0) { $0 + cpoold_private_bytes($1.pid) } >> 20)
    }
}
