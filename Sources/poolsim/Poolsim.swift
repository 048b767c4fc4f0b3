import ArgumentParser
import Glibc
import PoolSimulator

@main
struct Poolsim: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "poolsim",
        abstract: "Drives poold's state machine through seeded worlds of faults, in virtual time, against a shadow model.",
        discussion: """
            EXAMPLES
              poolsim run --seeds 10000
              poolsim replay 4711
            """,
        subcommands: [Run.self, Replay.self])
}

/// The seed at hand, for when the machine itself traps.
nonisolated(unsafe) private var currentSeed: UInt64 = 0

private func installTrapReporter() {
    let report: @convention(c) (Int32) -> Void = { signal in
        var digits: [UInt8] = []
        var seed = currentSeed
        repeat {
            digits.insert(UInt8(0x30 + seed % 10), at: 0)
            seed /= 10
        } while seed > 0
        let text = Array("\npoolsim: the machine trapped in seed ".utf8) + digits + [0x0A]
        _ = text.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
        _exit(1)
    }
    for number in [SIGILL, SIGTRAP, SIGSEGV, SIGABRT, SIGBUS, SIGFPE] { signal(number, report) }
}

/// Runs one seed; every eighth twice, with and without encoding, which must not differ.
private func runSeed(_ seed: UInt64, steps: Int, totals: inout RunTotals) -> String? {
    currentSeed = seed
    var plain = Simulation(seed: seed, encodes: false)
    let hash: Int
    do throws(Violation) { hash = try plain.run(steps: steps) } catch { return error.text }
    totals.add(plain.totals)
    guard seed % 8 == 0 else { return nil }
    var encoded = Simulation(seed: seed, encodes: true)
    do throws(Violation) {
        let other = try encoded.run(steps: steps)
        totals.add(encoded.totals)
        return other == hash ? nil : "the run differs when the state is encoded and decoded on its way"
    } catch { return "with encoding: " + error.text }
}

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run many seeds; stop at the first failure and show its trace.")
    @Option(help: "How many seeds, 1 to 100,000,000.") var seeds: UInt64 = 10_000
    @Option(help: "The first seed.") var from: UInt64 = 0
    @Option(help: "Steps of each run before the faults stop, 1 to 1,000,000.") var steps = 500

    func validate() throws {
        guard (1...100_000_000).contains(seeds) else { throw ValidationError("--seeds \(seeds) is outside of 1…100000000") }
        guard (1...1_000_000).contains(steps) else { throw ValidationError("--steps \(steps) is outside of 1…1000000") }
    }

    func run() throws {
        installTrapReporter()
        var totals = RunTotals()
        let began = clock()
        var seed = from
        while seed < from + seeds {
            if let text = runSeed(seed, steps: steps, totals: &totals) {
                print("seed \(seed) FAILED: \(text)\n")
                showTrace(seed, steps: steps, lines: 60)
                print("\nrepeat: poolsim replay \(seed) --steps \(steps)")
                throw ExitCode(1)
            }
            seed += 1
        }
        let seconds = Double(clock() - began) / Double(CLOCKS_PER_SEC)
        print("\(seeds) seeds passed in \(Int(seconds * 10) / 10) s of CPU, \(Int(Double(seeds) / max(seconds, 0.001))) a second")
        print("events \(totals.events), effects \(totals.effects), states encoded and decoded \(totals.encodings)")
        print(
            "calls \(totals.calls): delivered \(totals.results), refused \(totals.refused) (quarantined \(totals.quarantined)), timeouts \(totals.timeouts), cancelled \(totals.cancelled), worker lost \(totals.lost)"
        )
        print("worker deaths \(totals.deaths), back-offs \(totals.failedStarts), retries \(totals.retried), take-backs \(totals.takenBack)")
    }
}

private func showTrace(_ seed: UInt64, steps: Int, lines: Int) {
    for encodes in [false, true] {
        var simulation = Simulation(seed: seed, encodes: encodes, keepsTrace: true)
        do throws(Violation) { _ = try simulation.run(steps: steps) } catch {
            for line in simulation.trace.suffix(lines) { print(line) }
            print("→ \(error.text)")
            return
        }
    }
}

struct Replay: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run one seed again and show what happened.")
    @Argument(help: "The seed.") var seed: UInt64
    @Option(help: "Steps of the run.") var steps = 500
    @Option(help: "Lines of the trace, from its end.") var lines = 200

    func run() throws {
        installTrapReporter()
        currentSeed = seed
        var totals = RunTotals()
        showTrace(seed, steps: steps, lines: lines)
        if let text = runSeed(seed, steps: steps, totals: &totals) {
            print("FAILED: \(text)")
            throw ExitCode(1)
        }
        print("passed")
    }
}
