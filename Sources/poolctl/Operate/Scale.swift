import ArgumentParser
import PoolClient
import PoolProtocol

struct Scale: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "scale", abstract: "Change how many workers a pool has.",
        usage: "poolctl scale <pool> <n | +n | -n> [--wait [--timeout <span>]]",
        discussion: """
            More: new ones serve as soon as they are ready. Fewer: idle ones end at
            once, busy ones finish their calls first.

            EXAMPLES
              poolctl scale text 4 --wait
              poolctl scale text +1
              poolctl scale text -1
            """)
    @OptionGroup var target: PoolArgument
    @Argument(help: "Wanted workers; +N or -N: so many more or fewer.") var workers: Change
    @OptionGroup var waiting: Waiting
    @OptionGroup var common: Common

    /// A count, or a difference.
    enum Change: ExpressibleByArgument {
        case count(Int)
        case by(Int)

        init?(argument: String) {
            guard let first = argument.first, let number = Int(argument.drop { "+-−".contains($0) }), (0...1_000_000).contains(number) else { return nil }
            switch first {
            case "+": self = .by(number)
            case "-", "−": self = .by(-number)
            default: self = .count(number)
            }
        }
    }

    /// `scale text -1`: the parser would take -1 for an option; a true minus sign it leaves alone.
    static func protectSigns(_ arguments: [String]) -> [String] {
        guard arguments.first == "scale" else { return arguments }
        return arguments.map { $0.count > 1 && $0.hasPrefix("-") && $0.dropFirst().allSatisfy(\.isNumber) ? "−" + $0.dropFirst() : $0 }
    }

    func run() throws {
        let pool = try Common.find(target.pool, in: try common.status())
        var request = Poold_V1_ScaleRequest()
        request.pool = target.pool
        switch workers {
        case .count(let count): request.workers = UInt32(clamping: count)
        case .by(let difference): request.workers = UInt32(clamping: max(0, Int(pool.wanted) + difference))
        }
        if !common.json {
            let bounds = pool.maximumWorkers > 0 ? "; bounds \(pool.minimumWorkers) to \(pool.maximumWorkers)" : ""
            Output.line("pool \(pool.name) now: \(pool.wanted) wanted, \(pool.readyWorkers) ready, \(pool.busyWorkers) busy\(bounds)")
        }
        let done: Poold_V1_Done = try common.ask(.scale, request, pool: target.pool)
        if !common.json { try common.show(done) }
        try waiting.wait(
            common, pool: target.pool, describe: { "\($0.readyWorkers) of \($0.wanted) ready, \($0.movingWorkers) coming or going" },
            isDone: { $0.readyWorkers == Int($0.wanted) && $0.movingWorkers == 0 })
        if common.json { try common.show(done) } else if waiting.wait { Output.line("done") }
    }
}
