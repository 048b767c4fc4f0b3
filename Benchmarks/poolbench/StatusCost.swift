import ArgumentParser
import CPoold
import Foundation
import PoolClient
import PoolProtocol
import SwiftProtobuf

struct StatusCost: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status-cost",
        abstract: "What a status of many pools costs at saturation: how long it takes, and what callers lose by it.",
        discussion: "Exit status 0: both bars hold.\n\nEXAMPLE\n  poolbench status-cost --pools 50 --pairs 400")
    @OptionGroup var options: ServerOptions
    @Option(help: "Pools, 1 to 500; each with --workers workers.") var pools = 50
    @Option(help: "Connections that keep one pool busy.") var connections = 16
    @Option(help: "Statuses that are timed, each way.") var repeats = 100
    @Option(help: "Pairs of slices, with and without a status, 6 to 100,000; fewer than 100 decide little.") var pairs = 100
    @Option(help: "Milliseconds between runs of `poolctl status`, 20 to 60,000; the bar is on this.") var every = 1000
    @Option(help: "Milliseconds between bare OPERATION_STATUS, 20 to 60,000.") var operationEvery = 100

    /// A status may take this long, ms, 19 times of 20; and callers may lose this share.
    static let longest = 50.0
    static let leastRatio = 0.99

    func run() throws {
        guard (1...500).contains(pools) else { throw ValidationError("--pools \(pools) is outside of 1…500") }
        guard (6...100_000).contains(pairs) else { throw ValidationError("--pairs \(pairs) is outside of 6…100000") }
        guard (1...10_000).contains(repeats) else { throw ValidationError("--repeats \(repeats) is outside of 1…10000") }
        guard (20...60_000).contains(every) else { throw ValidationError("--every \(every) is outside of 20…60000") }
        guard (20...60_000).contains(operationEvery) else { throw ValidationError("--operation-every \(operationEvery) is outside of 20…60000") }
        let servers = try options.servers()
        defer { servers.remove() }
        let names = (1..<max(pools, 1)).map { "pool\($0)=\(servers.root)/Benchmarks/bench_worker.py" }
        let server = try servers.start(.poold, options: names.flatMap { ["--pool", $0] })
        defer { server.stop() }
        let control = server.socket + ".control"
        try awaitReady(control)

        let poolctl = servers.root + "/.build/release/poolctl"
        let direct = try timesOfOperation(server, control)
        let command = try timesOfCommand(poolctl, server)
        let shares = [
            try share(of: "`poolctl status`", server, every) {
                let status = Self.run([poolctl, "status", "--socket", server.socket])
                guard status == 0 else { throw LoadError(description: "poolctl status ended with \(status)") }
            },
            try share(of: "OPERATION_STATUS", server, operationEvery, asking(control)),
        ]

        let isFast = max(direct.usual, command.usual) < Self.longest
        let isCheap = shares[0].ratio >= Self.leastRatio
        if options.json {
            let ratios = shares.map { share in
                let interval = share.bounds.map { "[\(thousandths($0.low)), \(thousandths($0.high))]" } ?? "null"
                let head = "{\"what\": \"\(share.what.filter { $0 != "`" })\", \"every_ms\": \(share.every), \"ratio\": \(thousandths(share.ratio))"
                return head + ", \"confidence_95\": \(interval), \"pairs\": \(share.halves.count), \"per_second\": \(Int(share.perSecond))}"
            }
            let throughput = ratios.joined(separator: ", ")
            print("{\"pools\": \(pools), \"operation_ms\": \(direct.json), \"poolctl_ms\": \(command.json), \"throughput\": [\(throughput)]}")
        } else {
            print("\(pools) pools at saturation, \(connections) connections, \(repeats) statuses each way")
            print("  bar at the 95th percentile: \(Int(Self.longest)) ms")
            print("  OPERATION_STATUS  \(direct.text)")
            print("  poolctl status    \(command.text), from the program's start to its end")
            for share in shares {
                let bounds = share.bounds.map { "95 % confidence \(thousandths($0.low)) … \(thousandths($0.high))" } ?? "too few pairs for bounds"
                let head = "  \(share.what) every \(share.every) ms: throughput × \(thousandths(share.ratio)) of \(Int(share.perSecond)) calls/s"
                print(head + ", \(share.halves.count) pairs; \(bounds)")
            }
            if let interval = shares[0].bounds {
                let isDecided = interval.low >= Self.leastRatio || interval.high < Self.leastRatio
                let doubt = isDecided ? "" : ", but the bounds are on both sides: take more pairs"
                print("  bar \(Self.leastRatio) at the first: \(isCheap ? "holds" : "BROKEN")\(doubt)")
            }
        }
        guard isFast && isCheap else { throw ExitCode(1) }
    }

    private func thousandths(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }

    private func load(_ server: Server, _ seconds: Double) -> Load {
        var load = Load(socket: server.socket)
        load.connections = connections
        load.seconds = seconds
        load.warmup = 0.1
        return load
    }

    private func awaitReady(_ control: String) throws {
        for _ in 0..<1200 {
            let bytes = try PoolConnection(path: control, greets: false).control(UInt16(Poold_V1_Operation.status.rawValue), [])
            let status = try Poold_V1_Status(serializedBytes: bytes)
            if status.pools.count == pools && status.pools.allSatisfy({ $0.health == "ready" }) { return }
            usleep(100_000)
        }
        throw LoadError(description: "\(pools) pools did not become ready within 120 s")
    }

    /// Foundation's `waitUntilExit` looks every 50 ms, which is more than the command takes.
    private static func run(_ arguments: [String]) -> Int32 {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        var texts: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for text in texts { free(text) } }
        var pid: pid_t = 0
        guard posix_spawn(&pid, arguments[0], &actions, nil, &texts, environ) == 0 else { return -1 }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        return status
    }

    /// From the start of the program to its end.
    private func timesOfCommand(_ poolctl: String, _ server: Server) throws -> StatusTimes {
        guard FileManager.default.isExecutableFile(atPath: poolctl) else { throw LoadError(description: "\(poolctl) is missing: `make build`") }
        let background = BackgroundLoad(load(server, Double(repeats) * 0.2 + 2))
        var times: [Double] = []
        usleep(500_000)
        for _ in 0..<repeats where background.isRunning {
            let before = cpoold_now()
            let status = Self.run([poolctl, "status", "--socket", server.socket])
            times.append(Double(cpoold_now() - before) / 1e6)
            guard status == 0 else { throw LoadError(description: "poolctl status ended with \(status)") }
        }
        _ = try background.wait()
        return StatusTimes(times)
    }

    private func timesOfOperation(_ server: Server, _ control: String) throws -> StatusTimes {
        let background = BackgroundLoad(load(server, Double(repeats) * 0.025 + 1))
        usleep(500_000)
        let connection = try PoolConnection(path: control, greets: false)
        var times: [Double] = []
        for _ in 0..<repeats where background.isRunning {
            let before = cpoold_now()
            _ = try connection.control(UInt16(Poold_V1_Operation.status.rawValue), [])
            times.append(Double(cpoold_now() - before) / 1e6)
            usleep(20_000)
        }
        _ = try background.wait()
        return StatusTimes(times)
    }

    private func asking(_ control: String) throws -> () throws -> Void {
        let connection = try PoolConnection(path: control, greets: false)
        return { _ = try connection.control(UInt16(Poold_V1_Operation.status.rawValue), []) }
    }

    /// One load that is never interrupted; each interval has two slices, and by chance one of the two begins with a status. What drifts
    /// slower than an interval strikes both.
    private func share(of what: String, _ server: Server, _ interval: Int, _ ask: () throws -> Void) throws -> StatusShare {
        let slice = UInt64(interval) * 500_000
        var load = load(server, Double(pairs) * Double(interval) / 1000)
        load.begin = cpoold_now() + 1_000_000_000
        load.slice = slice
        let background = BackgroundLoad(load)
        var chance = SystemRandomNumberGenerator()
        var chosen: [Int] = []
        for pair in 0..<pairs where background.isRunning {
            let index = 2 * pair + Int.random(in: 0...1, using: &chance)
            let time = load.begin + UInt64(index) * slice
            while case let now = cpoold_now(), now < time { usleep(UInt32(min(time - now, 20_000_000) / 1000) + 1) }
            try ask()
            // What it costs beyond its slice would be counted for the other one.
            guard cpoold_now() < time + slice else { throw LoadError(description: "a status took longer than half of \(interval) ms; take a longer interval") }
            chosen.append(index)
        }
        let result = try background.wait()
        guard chosen.count == pairs, result.errorCount == 0 else {
            throw LoadError(description: "the load ended with \(result.errors) after \(chosen.count) of \(pairs) pairs")
        }
        let halves = chosen.map { Double(result.slices[$0]) / Double(max(1, result.slices[$0 ^ 1])) }
        return StatusShare(what: what, every: interval, halves: halves, perSecond: result.perSecond)
    }
}

/// What statuses take from callers.
struct StatusShare {
    var what: String
    /// Milliseconds.
    var every: Int
    /// Results in the half of each interval that has a status, per result in the other.
    var halves: [Double]
    var perSecond: Double
    /// Throughput with statuses per throughput without: half of each interval bears what the status costs.
    var ratio: Double { (1 + Report.median(halves)) / 2 }
    var bounds: (low: Double, high: Double)? { Report.medianInterval(halves).map { ((1 + $0.low) / 2, (1 + $0.high) / 2) } }
}

struct StatusTimes {
    /// Milliseconds; `usual`: the 95th percentile.
    var median: Double
    var usual: Double
    var worst: Double
    init(_ times: [Double]) {
        let sorted = times.sorted()
        median = Report.median(times)
        usual = sorted.isEmpty ? .infinity : sorted[min(sorted.count - 1, sorted.count * 95 / 100)]
        worst = sorted.last ?? .infinity
    }

    var text: String { "median \(Report.rounded(median)) ms, 95th percentile \(Report.rounded(usual)) ms, worst \(Report.rounded(worst)) ms" }
    var json: String { "{\"median\": \(Report.rounded(median)), \"p95\": \(Report.rounded(usual)), \"max\": \(Report.rounded(worst))}" }
}

/// A load on a thread of its own.
final class BackgroundLoad: @unchecked Sendable {
    private let lock = NSLock()
    private var outcome: Result<LoadResult, any Error>?
    private let finished = DispatchSemaphore(value: 0)

    init(_ load: Load) {
        Thread { [self] in
            let result = Result { try LoadGenerator(load).run() }
            lock.withLock { outcome = result }
            finished.signal()
        }.start()
    }

    var isRunning: Bool { lock.withLock { outcome == nil } }

    func wait() throws -> LoadResult {
        finished.wait()
        return try lock.withLock { try outcome!.get() }
    }
}
