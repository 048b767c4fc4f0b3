import ArgumentParser
import PoolClient
import PoolProtocol

struct Quarantine: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "quarantine", abstract: "List calls that killed workers and are refused, or release them.",
        usage: "poolctl quarantine [<pool>] [--clear <hash | all>] [options]",
        discussion: """
            A method with a body (or an idempotency key) that workers died with is refused
            for a while. HASH names both.

            EXAMPLES
              poolctl quarantine
              poolctl quarantine text --clear all
              poolctl quarantine --clear 5f2a91c04be7d310
            """)
    @OptionGroup var filter: PoolFilter
    @Option(help: ArgumentHelp("Release one by its hash, or all.", valueName: "hash|all")) var clear: String?
    @OptionGroup var common: Common

    func run() throws {
        if let clear { return try release(clear) }
        let list: Poold_V1_QuarantineList = try common.ask(.quarantine, filter.message, pool: filter.pool)
        if common.json { return Output.line(try list.json()) }
        guard !list.bodies.isEmpty else { return Output.line("nothing is in quarantine") }
        var table = Table([
            .left("POOL", canShrink: true), .left("METHOD", canShrink: true), .left("HASH"), .right("DEATHS"), .left("NOW"), .right("LAST DEATH", rank: 2),
            .right("FORGOTTEN IN", rank: 1),
        ])
        for body in list.bodies {
            table.add([
                Cell(body.pool), Cell(body.method), Cell(body.hash), "\(body.deaths)",
                body.refused ? Cell("refused", .bad) : Cell("allowed", .warning), Cell("\(Format.age(body.lastDeathNanosecondsAgo)) ago"),
                Cell(Format.age(body.remainingNanoseconds)),
            ])
        }
        Output.line(table.lines(common.style).joined(separator: "\n"))
    }

    private func release(_ hash: String) throws {
        var requests: [Poold_V1_QuarantineRequest] = []
        if hash == "all", let pool = filter.pool {
            requests.append(Self.request(pool, ""))
        } else {
            let list: Poold_V1_QuarantineList = try common.ask(.quarantine, filter.message, pool: filter.pool)
            if hash == "all" {
                requests = Set(list.bodies.map(\.pool)).sorted().map { Self.request($0, "") }
            } else {
                requests = list.bodies.filter { $0.hash == hash.lowercased() }.map { Self.request($0.pool, $0.hash) }
                if requests.isEmpty {
                    throw PoolError(status: "not_found", message: "nothing with the hash \(hash) is in quarantine; see `poolctl quarantine`")
                }
            }
        }
        var sum = Poold_V1_Done()
        var explanations: [String] = []
        for request in requests {
            let clear = { () throws(PoolError) -> Poold_V1_Done in try common.ask(.clearQuarantine, request, pool: request.pool) }
            let done = try explanations.isEmpty ? clear() : Common.afterwards(clear)
            sum.affected += done.affected
            explanations.append(done.explanation)
        }
        sum.explanation = requests.isEmpty ? "nothing was in quarantine" : explanations.joined(separator: "\n")
        try common.show(sum)
    }

    private static func request(_ pool: String, _ hash: String) -> Poold_V1_QuarantineRequest {
        var request = Poold_V1_QuarantineRequest()
        request.pool = pool
        request.hash = hash
        return request
    }
}
