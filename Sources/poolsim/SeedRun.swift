import PoolSimulator

/// How a seed is run; small enough to be repeated by hand.
struct SeedRun {
    var seed: UInt64
    var steps: Int
    var without: [String] = []

    /// Every eighth seed runs twice, and tells who gets how much.
    private static let period: UInt64 = 8

    /// What went wrong, if something did; `digest` takes in every effect of the run.
    func failure(totals: inout Totals, digest: inout UInt64) -> String? {
        var plain = Simulation(seed: seed, encodes: false, without: without)
        let value: UInt64
        do throws(Violation) { value = try plain.run(steps: steps) } catch { return error.text }
        totals.add(plain.totals)
        digest = (digest ^ value) &* 0x100_0000_01b3
        guard seed % Self.period == 0 else { return nil }
        var encoded = Simulation(seed: seed, encodes: true, without: without)
        do throws(Violation) {
            let other = try encoded.run(steps: steps)
            totals.add(encoded.totals)
            if other != value { return "the run differs when the state is encoded and decoded on its way" }
        } catch { return "with encoding: " + error.text }
        var shares = FairShare(seed: seed)
        do throws(Violation) { try shares.run() } catch { return error.text }
        return nil
    }

    /// What kind of failure it is: its text without the numbers.
    var kindOfFailure: String? {
        var (totals, digest) = (Totals(), UInt64(0))
        return failure(totals: &totals, digest: &digest)?.filter { !$0.isNumber }
    }

    /// Runs it once more and reports what happens, up to the failure if there is one.
    func trace(_ reporter: @escaping (String) -> Void) -> String? {
        for encodes in seed % Self.period == 0 ? [false, true] : [false] {
            var simulation = Simulation(seed: seed, encodes: encodes, without: without, reporter: reporter)
            do throws(Violation) { _ = try simulation.run(steps: steps) } catch { return error.text }
        }
        return nil
    }

    /// The last lines of the trace.
    func printTail(_ lines: Int) {
        let tail = Tail(limit: lines)
        let text = trace { tail.add($0) }
        for line in tail.lines { print(line) }
        print(text.map { "→ \($0)" } ?? "→ the run itself passes")
    }

    var command: String {
        "poolsim replay \(seed) --steps \(steps)" + without.map { " --without \($0)" }.joined()
    }
}

private final class Tail {
    private let limit: Int
    private(set) var lines: [String] = []
    init(limit: Int) { self.limit = limit }
    func add(_ line: String) {
        if lines.count >= 2 * limit { lines.removeFirst(lines.count - limit) }
        lines.append(line)
    }
}
