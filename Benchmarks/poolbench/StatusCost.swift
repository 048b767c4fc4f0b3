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
        discussion: "Exit status 0: both bars hold.\n\nEXAMPLE\n  poolbench status-cost --pools 50 --pairs 40")
    @OptionGroup var options: ServerOptions
    @Option(help: "Pools, 1 to 500; each with --workers workers.") var pools = 50
    @Option(help: "Connections that keep one pool busy.") var connections = 16
    @Option(help: "Statuses that are timed, each way.") var repeats = 100
    @Option(help: "Pairs of slices, with and without statuses, 6 to 10,000; fewer than 20 decide little.") var pairs = 20
    @Option(help: "Seconds of a slice; never less than two intervals.") var slice = 1.0
    @Option(help: "Milliseconds between statuses; repeat for more.") var every: [Int] = [1000, 100]

    /// A status may take this long, ms, 19 times of 20; and callers may lose this share.
    static let longest = 50.0
    static let leastRatio = 0.99

    func run() throws {
        guard (1...500).contains(pools) else { throw ValidationError("--pools \(pools) is outside of 1…500") }
        guard (6...10_000).contains(pairs) else { throw ValidationError("--pairs \(pairs) is outside of 6…10000") }
        guard (1...10_000).contains(repeats) else { throw ValidationError("--repeats \(repeats) is outside of 1…10000") }
        guard !every.isEmpty, every.allSatisfy({ (1...60_000).contains($0) }) else { throw ValidationError("--every takes 1 to 60000 ms") }
        guard slice > 0, slice <= 600 else { throw ValidationError("--slice \(slice) is outside of 0…600") }
        let servers = try options.servers()
        defer { servers.remove() }
        let names = (1..<max(pools, 1)).map { "pool\($0)=\(servers.root)/Benchmarks/bench_worker.py" }
        let server = try servers.start(.poold, options: names.flatMap { ["--pool", $0] })
        defer { server.stop() }
        let control = server.socket + ".control"
        try awaitReady(control)

        let operation = StatusAsker(control: control, milliseconds: 20)
        let direct = try operation.times(while: server, load: load(server, Double(repeats) * 0.025 + 1), repeats: repeats)
        let command = try timesOfCommand(servers.root + "/.build/release/poolctl", server)
        var shares: [(every: Int, ratios: [Double])] = []
        for interval in every { shares.append((interval, try pairedRatios(server, control, interval))) }

        let isFast = max(direct.usual, command.usual) < Self.longest
        let isCheap = Report.median(shares[0].ratios) >= Self.leastRatio
        if options.json {
            let ratios = shares.map { share in
                let interval = Report.medianInterval(share.ratios).map { "[\(thousandths($0.low)), \(thousandths($0.high))]" } ?? "null"
                let pairs = "\"pairs\": \(share.ratios.count)"
                return "{\"every_ms\": \(share.every), \"median_ratio\": \(rounded(share.ratios)), \"confidence_95\": \(interval), \(pairs)}"
            }
            let throughput = ratios.joined(separator: ", ")
            print("{\"pools\": \(pools), \"operation_ms\": \(direct.json), \"poolctl_ms\": \(command.json), \"throughput\": [\(throughput)]}")
        } else {
            print("\(pools) pools at saturation, \(connections) connections, \(repeats) statuses each way")
            print("  bar at the 95th percentile: \(Int(Self.longest)) ms")
            print("  OPERATION_STATUS  \(direct.text)")
            print("  poolctl status    \(command.text), from the program's start to its end")
            for share in shares {
                let interval = Report.medianInterval(share.ratios)
                let bounds = interval.map { "95 % confidence \(thousandths($0.low)) … \(thousandths($0.high))" } ?? "too few pairs for bounds"
                print("  a status every \(share.every) ms: throughput × \(rounded(share.ratios)), median of \(share.ratios.count) pairs; \(bounds)")
            }
            if let interval = Report.medianInterval(shares[0].ratios) {
                let isDecided = interval.low >= Self.leastRatio || interval.high < Self.leastRatio
                let doubt = isDecided ? "" : ", but the bounds are on both sides: take more pairs"
                print("  bar \(Self.leastRatio) at the first: \(isCheap ? "holds" : "BROKEN")\(doubt)")
            }
        }
        guard isFast && isCheap else { throw ExitCode(1) }
    }

    private func thousandths(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }
    private func rounded(_ ratios: [Double]) -> Double { thousandths(Report.median(ratios)) }

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

    /// A B, then B A, and so on: what drifts strikes both. Each slice sees at least two statuses.
    private func pairedRatios(_ server: Server, _ control: String, _ interval: Int) throws -> [Double] {
        var ratios: [Double] = []
        for pair in 0..<pairs {
            var rates = (with: 0.0, without: 0.0)
            for isWith in pair % 2 == 0 ? [true, false] : [false, true] {
                let asker = isWith ? StatusAsker(control: control, milliseconds: interval) : nil
                let load = load(server, max(slice, 2 * Double(interval) / 1000))
                // Half an interval into the window that is measured, so that each window has its full number of them.
                asker?.start(after: load.warmup + Double(interval) / 2000)
                let rate = try LoadGenerator(load).run().perSecond
                asker?.stop()
                if isWith { rates.with = rate } else { rates.without = rate }
            }
            ratios.append(rates.with / max(1, rates.without))
        }
        return ratios
    }
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

/// Asks for the status again and again, on a thread of its own.
final class StatusAsker: @unchecked Sendable {
    private let control: String
    private let milliseconds: Int
    private let lock = NSLock()
    private var isOver = false
    private let finished = DispatchSemaphore(value: 0)

    init(control: String, milliseconds: Int) {
        self.control = control
        self.milliseconds = milliseconds
    }

    func start(after seconds: Double) {
        let first = cpoold_now() + UInt64(seconds * 1e9)
        Thread { [self] in
            var next = first
            defer { finished.signal() }
            guard let connection = try? PoolConnection(path: control, greets: false) else { return }
            while true {
                // In short steps, so that a slice's end is not waited for.
                while cpoold_now() < next && !lock.withLock({ isOver }) { usleep(UInt32(min(milliseconds, 20)) * 1000) }
                guard !lock.withLock({ isOver }) else { return }
                _ = try? connection.control(UInt16(Poold_V1_Operation.status.rawValue), [])
                // By the clock, however long each takes.
                next = max(next + UInt64(milliseconds) * 1_000_000, cpoold_now())
            }
        }.start()
    }

    func stop() {
        lock.withLock { isOver = true }
        finished.wait()
    }

    /// How long each of so many takes while the load is on.
    func times(while server: Server, load: Load, repeats: Int) throws -> StatusTimes {
        let background = BackgroundLoad(load)
        usleep(500_000)
        let connection = try PoolConnection(path: control, greets: false)
        var times: [Double] = []
        for _ in 0..<repeats where background.isRunning {
            let before = cpoold_now()
            _ = try connection.control(UInt16(Poold_V1_Operation.status.rawValue), [])
            times.append(Double(cpoold_now() - before) / 1e6)
            usleep(UInt32(milliseconds) * 1000)
        }
        _ = try background.wait()
        return StatusTimes(times)
    }
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
