import ArgumentParser
import Glibc
import PoolSimulator

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run many seeds; stop at the first failure and show its last steps.")
    @Option(help: "How many seeds, 1 to 100,000,000.") var seeds: UInt64 = 10_000
    @Option(help: "The first seed.") var from: UInt64 = 0
    @Option(help: "Steps of each run before its faults stop, 1 to 1,000,000.") var steps = 300
    @Option(help: "Threads to run them on, 1 to 64.") var jobs = 1
    @Option(help: "Lines of the trace of a failure.") var lines = 120
    @Flag(help: "Go on after a failure, and list them.") var keepGoing = false
    @Flag(help: "Only say whether all passed.") var quiet = false

    func validate() throws {
        guard (1...100_000_000).contains(seeds) else { throw ValidationError("--seeds \(seeds) is outside of 1…100000000") }
        guard (1...1_000_000).contains(steps) else { throw ValidationError("--steps \(steps) is outside of 1…1000000") }
        guard (1...SeedBoard.maximumJobs).contains(jobs) else { throw ValidationError("--jobs \(jobs) is outside of 1…\(SeedBoard.maximumJobs)") }
        guard !from.addingReportingOverflow(seeds).overflow else { throw ValidationError("--from \(from) leaves no room for \(seeds) seeds") }
    }

    func run() throws {
        SeedBoard.install(jobs: jobs)
        let began = Self.now()
        var all: [Job] = []
        for number in 0..<jobs { all.append(Job(number: number, of: self)) }
        var threads: [pthread_t] = []
        for job in all.dropFirst() {
            var thread = pthread_t()
            let argument = Unmanaged.passRetained(job).toOpaque()
            let status = pthread_create(
                &thread, nil,
                { argument in
                    Unmanaged<Job>.fromOpaque(argument!).takeRetainedValue().work()
                    return nil
                }, argument)
            guard status == 0 else { throw ValidationError("no thread for job \(job.number): \(String(cString: strerror(status)))") }
            threads.append(thread)
        }
        all[0].work()
        for thread in threads { pthread_join(thread, nil) }

        var totals = Totals()
        var digest: UInt64 = 0
        var failures: [(seed: UInt64, text: String)] = []
        for job in all {
            totals.add(job.totals)
            digest ^= job.digest
            failures += job.failures
        }
        failures.sort { $0.seed < $1.seed }
        if let first = failures.first {
            for failure in failures.prefix(100) { print("seed \(failure.seed) FAILED: \(failure.text)") }
            let again = SeedRun(seed: first.seed, steps: steps)
            print("\nthe last steps of seed \(first.seed):")
            again.printTail(lines)
            print("\nrepeat: \(again.command) --trace\nsmaller: poolsim shrink \(first.seed) --steps \(steps)")
            throw ExitCode(1)
        }
        let seconds = max(Self.now() - began, 0.001)
        print("\(seeds) seeds passed in \(Self.tenths(seconds)) s, \(Int(Double(seeds) / seconds)) a second on \(jobs) thread\(jobs == 1 ? "" : "s")")
        guard !quiet else { return }
        print("\(totals.events) events, \(totals.effects) effects; digest \(String(digest, radix: 16))")
        for group in Tally.groups {
            let entries = (group.first.rawValue...group.last.rawValue).compactMap { Tally(rawValue: $0) }.map { "\($0) \(totals[$0])" }
            print("\n\(group.title):\n  " + entries.joined(separator: " · "))
        }
    }

    private static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    private static func tenths(_ seconds: Double) -> String { "\(Double(Int(seconds * 10)) / 10)" }
}

/// Every `jobs`-th seed.
private final class Job {
    let number: Int
    private let order: Run
    var totals = Totals()
    var digest: UInt64 = 0
    var failures: [(seed: UInt64, text: String)] = []

    init(number: Int, of order: Run) {
        self.number = number
        self.order = order
    }

    func work() {
        SeedBoard.begin(job: number)
        var seed = order.from + UInt64(number)
        while seed < order.from + order.seeds {
            SeedBoard.set(job: number, seed: seed)
            // Summed without order, so that it does not depend on the number of threads.
            var own: UInt64 = seed
            if let text = SeedRun(seed: seed, steps: order.steps).failure(totals: &totals, digest: &own) {
                failures.append((seed, text))
                guard order.keepGoing else { return }
            }
            digest ^= own
            seed += UInt64(order.jobs)
        }
    }
}
