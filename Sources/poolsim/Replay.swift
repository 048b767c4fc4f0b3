import ArgumentParser
import PoolSimulator

struct Replay: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run one seed again and show what happens.")
    @Argument(help: "The seed.") var seed: UInt64
    @Option(help: "Steps of the run before its faults stop.") var steps = 300
    @Option(help: "A fault to leave out: \(Simulation.faultNames.joined(separator: ", ")).") var without: [String] = []
    @Option(help: "Lines from the end of the trace.") var lines = 200
    @Flag(help: "Show everything as it happens, up to a trap.") var trace = false

    func validate() throws {
        for name in without where !Simulation.faultNames.contains(name) { throw ValidationError("there is no fault '\(name)'") }
        guard (1...1_000_000).contains(steps) else { throw ValidationError("--steps \(steps) is outside of 1…1000000") }
    }

    func run() throws {
        SeedBoard.install(jobs: 1)
        SeedBoard.set(job: 0, seed: seed)
        let order = SeedRun(seed: seed, steps: steps, without: without)
        if trace { _ = order.trace { SeedBoard.writeLine($0) } } else { order.printTail(lines) }
        var (totals, digest) = (Totals(), UInt64(0))
        if let text = order.failure(totals: &totals, digest: &digest) {
            print("FAILED: \(text)")
            throw ExitCode(1)
        }
        print("passed, digest \(String(digest, radix: 16))")
    }
}

struct Shrink: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Find fewer steps and fewer faults with which a seed still fails.")
    @Argument(help: "The seed.") var seed: UInt64
    @Option(help: "Steps with which it fails.") var steps = 300
    @Option(help: "Lines of the trace.") var lines = 120

    func run() throws {
        SeedBoard.install(jobs: 1)
        SeedBoard.set(job: 0, seed: seed)
        var order = SeedRun(seed: seed, steps: steps)
        guard let kind = order.kindOfFailure else {
            print("seed \(seed) passes")
            return
        }
        for name in Simulation.faultNames {
            var smaller = order
            smaller.without.append(name)
            if smaller.kindOfFailure == kind { order = smaller }
        }
        var low = 1
        while low < order.steps {
            var smaller = order
            smaller.steps = (low + order.steps) / 2
            if smaller.kindOfFailure == kind { order = smaller } else { low = smaller.steps + 1 }
        }
        order.printTail(lines)
        print("\n\(order.command) --trace")
        throw ExitCode(1)
    }
}
