import ArgumentParser
import CPoold
import Foundation
import Glibc
import Histogram

@main
struct Poolbench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "poolbench",
        abstract: "Load and measure poold.",
        discussion: """
            EXAMPLES
              poolbench compare --onecpu
              poolbench closed --socket /run/poold/poold.sock --method bench.handle --connections 16
              poolbench overload --factor 2 --budget 200
              poolbench chaos --seconds 300
            """,
        subcommands: [Closed.self, Open.self, Compare.self, Overload.self, Fairness.self, Chaos.self, StatusCost.self])
}

struct LoadOptions: ParsableArguments {
    @Option(help: "poold's socket.") var socket: String
    @Option(help: "pool.method, codec bytes.") var method = "bench.handle"
    @Option(help: "Connections, 1 to 60,000.") var connections = 1
    @Option(help: "Bytes of each body, 0 to 67,108,864.") var payload = 100
    @Option(help: "The body's first byte: e echo, b 1 ms of CPU, s 5 ms of sleep, m 90 % 50 µs and 10 % 20 ms.") var fill = "e"
    @Option(help: "Measured seconds, up to 86,400.") var seconds = 5.0
    @Option(help: "Seconds before that.") var warmup = 0.5
    @Option(help: "Budget of a call in ms; 0: the pool's default.") var budget = 0.0
    @Option(help: "Become this user before connecting (needs root).") var uid: UInt32?
    @Flag(help: "The server is the floor: it knows no HELLO.") var floor = false
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
        guard (1...60_000).contains(connections) else { throw ValidationError("--connections \(connections) is outside of 1…60000") }
        guard (0...(64 << 20)).contains(payload) else { throw ValidationError("--payload \(payload) is outside of 0…67108864") }
        guard seconds > 0, seconds <= 86_400 else { throw ValidationError("--seconds \(seconds) is outside of 0…86400") }
        guard fill.utf8.count == 1 else { throw ValidationError("--fill takes one character") }
    }

    func load() throws -> Load {
        if let uid {
            guard setgroups(0, nil) == 0, setgid(uid) == 0, setuid(uid) == 0 else {
                throw ValidationError("cannot become user \(uid): \(String(cString: strerror(errno)))")
            }
        }
        var load = Load(socket: socket)
        load.method = method
        load.isFloor = floor
        load.connections = connections
        load.payload = payload
        load.fill = fill.utf8.first ?? 0
        load.seconds = seconds
        load.warmup = warmup
        load.budget = UInt64(budget * 1e6)
        return load
    }

    func show(_ load: Load) throws {
        let result = try LoadGenerator(load).run()
        print(json ? Report.json(result) : Report.text(result))
    }
}

struct Closed: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Closed loop: each connection keeps calls in flight.", discussion: "EXAMPLE\n  poolbench closed --socket S --connections 16 --depth 4")
    @OptionGroup var options: LoadOptions
    @Option(help: "Calls in flight on each connection, 1 to 1,024.") var depth = 1

    func run() throws {
        guard (1...1024).contains(depth) else { throw ValidationError("--depth \(depth) is outside of 1…1024") }
        var load = try options.load()
        load.depth = depth
        try options.show(load)
    }
}

struct Open: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Open loop: calls start on time whatever the server does; latency counts from the intended start.",
        discussion: "EXAMPLE\n  poolbench open --socket S --rate 5000 --connections 10000")
    @OptionGroup var options: LoadOptions
    @Option(help: "Calls a second, up to 1,000,000.") var rate = 1000.0

    func run() throws {
        guard rate > 0, rate <= 1_000_000 else { throw ValidationError("--rate \(rate) is outside of 0…1000000") }
        var load = try options.load()
        load.rate = rate
        try options.show(load)
    }
}

struct ServerOptions: ParsableArguments {
    @Option(help: "Python with numpy, for the workers.") var python = "python3"
    @Option(help: "Workers.") var workers = 2
    @Flag(help: "Everything on CPU 0: steady enough to compare.") var onecpu = false
    @Flag(help: "Print JSON.") var json = false

    func servers() throws -> Servers {
        if onecpu {
            guard cpoold_pin(0) == 0 else { throw ValidationError("this machine does not let poolbench choose its processor") }
        }
        let program: String
        if python.contains("/") {
            program = python.hasPrefix("/") ? python : FileManager.default.currentDirectoryPath + "/" + python
        } else {
            let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
            guard let folder = folders.first(where: { FileManager.default.isExecutableFile(atPath: "\($0)/\(python)") }) else {
                throw ValidationError("no \(python) on PATH")
            }
            program = "\(folder)/\(python)"
        }
        return try Servers(python: program, workers: workers)
    }
}

struct Compare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "poold beside the project's own floor: a direct echo and a bare C relay.",
        discussion: "Each repeat runs every server in turn; medians and ratios to floor-relay are printed.\n\nEXAMPLE\n  poolbench compare --onecpu --repeats 5"
    )
    @OptionGroup var options: ServerOptions
    @Option(help: "Repeats, 1 to 100.") var repeats = 5
    @Option(help: "Seconds of each run.") var seconds = 1.5

    func run() throws {
        let servers = try options.servers()
        defer { servers.remove() }
        let shapes: [(name: String, connections: Int, kinds: [Servers.Kind])] = [
            ("latency, 1 connection", 1, [.floorDirect, .floorRelay, .poold]), ("throughput, 16 connections", 16, [.floorRelay, .poold]),
            ("throughput, 1,000 connections", 1000, [.floorRelay, .poold]),
        ]
        var figures: [String: [String: [LoadResult]]] = [:]
        for _ in 0..<repeats {
            for kind in Servers.Kind.allCases {
                let server = try servers.start(kind)
                defer { server.stop() }
                for shape in shapes where shape.kinds.contains(kind) {
                    var load = Load(socket: server.socket)
                    load.isFloor = server.isFloor
                    load.connections = shape.connections
                    load.seconds = seconds
                    figures[shape.name, default: [:]][kind.rawValue, default: []].append(try LoadGenerator(load).run())
                }
            }
        }
        for shape in shapes {
            print("\n\(shape.name)")
            print("  SERVER        CALLS/S    P50 µs    P99 µs   CPU µs/CALL  RATIO")
            let base = figures[shape.name]?["floor-relay"] ?? []
            for kind in shape.kinds {
                let runs = figures[shape.name]?[kind.rawValue] ?? []
                func median(_ runs: [LoadResult], _ value: (LoadResult) -> Double) -> Double { Report.median(runs.map(value)) }
                let rate = median(runs) { $0.perSecond }
                let p50 = median(runs) { Double($0.latency.valueAtPercentile(50)) }
                let p99 = median(runs) { Double($0.latency.valueAtPercentile(99)) }
                let cpu = median(runs) { $0.serverMicrosecondsPerCall }
                let ratio =
                    shape.connections == 1
                    ? "p50 ×\(Report.rounded(p50 / max(1, median(base) { Double($0.latency.valueAtPercentile(50)) })))"
                    : "calls ×\(Report.rounded(rate / max(1, median(base) { $0.perSecond })))"
                func column(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(1, width - text.count)) + text }
                print(
                    "  " + kind.rawValue.padding(toLength: 12, withPad: " ", startingAt: 0) + column("\(Int(rate))", 9) + column("\(Int(p50))", 10)
                        + column("\(Int(p99))", 10) + column("\(Report.rounded(cpu))", 14) + "  " + ratio)
            }
        }
    }
}

struct Overload: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Several times the capacity: what is still served, how fast the rest is refused, how true the predictions are.",
        discussion: "EXAMPLE\n  poolbench overload --factor 2 --budget 200 --seconds 30")
    @OptionGroup var options: ServerOptions
    @Option(help: "Times the measured capacity.") var factor = 2.0
    @Option(help: "Budget of each call, ms.") var budget = 200.0
    @Option(help: "Seconds of overload.") var seconds = 30.0
    @Option(help: "Connections.") var connections = 64
    @Option(help: "The work: b is 1 ms of CPU.") var fill = "b"

    func run() throws {
        let servers = try options.servers()
        defer { servers.remove() }
        let server = try servers.start(.poold)
        defer { server.stop() }
        var load = Load(socket: server.socket)
        load.connections = connections
        load.fill = fill.utf8.first ?? 0
        load.seconds = 5
        let capacity = try LoadGenerator(load).run().perSecond
        load.rate = capacity * factor
        load.budget = UInt64(budget * 1e6)
        load.seconds = seconds
        load.warmup = 1
        let result = try LoadGenerator(load).run()
        let predicted = Double(result.predicted.valueAtPercentile(50))
        let waited = Double(result.waited.valueAtPercentile(50))
        if options.json {
            print(
                "{\"capacity\": \(Report.rounded(capacity)), \"goodput_share\": \(Report.rounded(result.perSecond / capacity)), \"result\": \(Report.json(result))}"
            )
            return
        }
        print(
            "capacity \(Int(capacity)) calls/s; offered \(Int(load.rate)); goodput \(Int(result.perSecond)) = \(Report.rounded(result.perSecond / capacity * 100)) %"
        )
        print(Report.text(result))
        print("refusals µs: " + Report.percentiles(result.refusal).map { "\($0.0) \($0.1)" }.joined(separator: "  "))
        print("median wait: predicted \(Int(predicted)) µs, real \(Int(waited)) µs, ratio \(Report.rounded(predicted / max(1, waited)))")
    }
}

struct Fairness: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "One connection of one user against many of another; needs root.", discussion: "EXAMPLE\n  poolbench fairness --connections 100")
    @OptionGroup var options: ServerOptions
    @Option(help: "The many's connections.") var connections = 100
    @Option(help: "Calls in flight on the one connection.") var depth = 64
    @Option(help: "Seconds.") var seconds = 5.0
    @Option(help: "The work.") var fill = "e"

    func run() throws {
        guard getuid() == 0 else { throw ValidationError("fairness between users needs root, to become two of them") }
        let servers = try options.servers()
        defer { servers.remove() }
        let server = try servers.start(.poold)
        defer { server.stop() }
        chmod(servers.folder, 0o755)
        func client(_ uid: UInt32, _ connections: Int, _ depth: Int) throws -> (Process, Pipe) {
            let process = Process()
            process.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
            process.arguments = [
                "closed", "--socket", server.socket, "--connections", "\(connections)", "--depth", "\(depth)", "--seconds", "\(seconds)", "--fill", fill,
                "--uid", "\(uid)", "--json",
            ]
            let pipe = Pipe()
            process.standardOutput = pipe
            try process.run()
            return (process, pipe)
        }
        let many = try client(65_533, connections, max(1, depth / 16))
        let one = try client(65_534, 1, depth)
        func rate(_ client: (Process, Pipe)) throws -> Double {
            let data = client.1.fileHandleForReading.readDataToEndOfFile()
            client.0.waitUntilExit()
            guard let object = try JSONSerialization.jsonObject(with: data) as? [String: Any], let rate = object["calls_per_second"] as? Double else {
                throw LoadError(description: "a client said nothing")
            }
            return rate
        }
        let (oneRate, manyRate) = (try rate(one), try rate(many))
        let share = oneRate / max(1, oneRate + manyRate) * 100
        print(
            options.json
                ? "{\"one\": \(oneRate), \"many\": \(manyRate), \"share_percent\": \(Report.rounded(share))}"
                : "1 connection \(Int(oneRate)) calls/s, \(connections) connections \(Int(manyRate)) calls/s: share of the one \(Report.rounded(share)) %")
    }
}
