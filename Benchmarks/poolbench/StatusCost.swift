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
    @Option(help: "Pairs of slices, with and without statuses.") var pairs = 20
    @Option(help: "Seconds of a slice.") var slice = 1.0
    @Option(help: "Milliseconds between statuses; repeat for more.") var every: [Int] = [1000, 100]

    /// A status may take this long, ms; and callers may lose this share.
    static let longest = 50.0
    static let leastRatio = 0.99

    func run() throws {
        guard (1...500).contains(pools) else { throw ValidationError("--pools \(pools) is outside of 1…500") }
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

        let isFast = max(direct.median, command.median) < Self.longest && max(direct.worst, command.worst) < Self.longest
        let isCheap = shares.first.map { Report.median($0.ratios) >= Self.leastRatio } ?? true
        if options.json {
            let ratios = shares.map { "{\"every_ms\": \($0.every), \"median_ratio\": \(rounded($0.ratios)), \"pairs\": \($0.ratios.count)}" }
                .joined(separator: ", ")
            print(
                "{\"pools\": \(pools), \"operation_ms\": {\"median\": \(Report.rounded(direct.median)), \"max\": \(Report.rounded(direct.worst))}, \"poolctl_ms\": {\"median\": \(Report.rounded(command.median)), \"max\": \(Report.rounded(command.worst))}, \"throughput\": [\(ratios)]}"
            )
        } else {
            print("\(pools) pools at saturation, \(connections) connections, \(repeats) statuses each way; bar \(Int(Self.longest)) ms")
            print("  OPERATION_STATUS  median \(Report.rounded(direct.median)) ms, worst \(Report.rounded(direct.worst)) ms")
            print("  poolctl status    median \(Report.rounded(command.median)) ms, worst \(Report.rounded(command.worst)) ms")
            for share in shares {
                let sorted = share.ratios.sorted()
                print(
                    "  a status every \(share.every) ms: throughput × \(rounded(share.ratios)) (median of \(sorted.count) pairs; quartiles \(thousandths(sorted[sorted.count / 4])) … \(thousandths(sorted[sorted.count * 3 / 4]))); bar \(Self.leastRatio) at the first"
                )
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

    /// From the start of the program to its end.
    private func timesOfCommand(_ poolctl: String, _ server: Server) throws -> StatusTimes {
        guard FileManager.default.isExecutableFile(atPath: poolctl) else { throw LoadError(description: "\(poolctl) is missing: `make build`") }
        let background = BackgroundLoad(load(server, Double(repeats) * 0.2 + 2))
        var times: [Double] = []
        usleep(500_000)
        for _ in 0..<repeats where background.isRunning {
            let process = Process()
            process.executableURL = URL(filePath: poolctl)
            process.arguments = ["status", "--socket", server.socket]
            process.standardOutput = FileHandle.nullDevice
            let before = cpoold_now()
            try process.run()
            process.waitUntilExit()
            times.append(Double(cpoold_now() - before) / 1e6)
            guard process.terminationStatus == 0 else { throw LoadError(description: "poolctl status ended with \(process.terminationStatus)") }
        }
        _ = try background.wait()
        return StatusTimes(times)
    }

    /// A B, then B A, and so on: what drifts strikes both.
    private func pairedRatios(_ server: Server, _ control: String, _ interval: Int) throws -> [Double] {
        var ratios: [Double] = []
        for pair in 0..<pairs {
            var rates = (with: 0.0, without: 0.0)
            for isWith in pair % 2 == 0 ? [true, false] : [false, true] {
                let asker = isWith ? StatusAsker(control: control, milliseconds: interval) : nil
                asker?.start()
                let rate = try LoadGenerator(load(server, slice)).run().perSecond
                asker?.stop()
                if isWith { rates.with = rate } else { rates.without = rate }
            }
            ratios.append(rates.with / max(1, rates.without))
        }
        return ratios
    }
}

struct StatusTimes {
    /// Milliseconds.
    var median: Double
    var worst: Double
    init(_ times: [Double]) {
        median = Report.median(times)
        worst = times.max() ?? .infinity
    }
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

    func start() {
        Thread { [self] in
            defer { finished.signal() }
            guard let connection = try? PoolConnection(path: control, greets: false) else { return }
            while !lock.withLock({ isOver }) {
                _ = try? connection.control(UInt16(Poold_V1_Operation.status.rawValue), [])
                // In short steps, so that a slice's end is not waited for.
                let next = cpoold_now() + UInt64(milliseconds) * 1_000_000
                while cpoold_now() < next && !lock.withLock({ isOver }) { usleep(UInt32(min(milliseconds, 20)) * 1000) }
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
