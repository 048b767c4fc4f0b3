import ArgumentParser
import PoolProtocol

struct StatusCommand: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show how poold and its pools are, in a line each.",
        usage: "poolctl status [<pool>] [--all] [--watch [<seconds>]] [options]",
        discussion: """
            Problems follow the table: what cannot start and why, an open circuit
            breaker, quarantined calls.

            EXAMPLES
              poolctl status
              poolctl status --watch 5
              poolctl status --json
            """)
    @OptionGroup var filter: PoolFilter
    @Flag(help: "With poold's own pools.") var all = false
    @OptionGroup var watch: Watch
    @OptionGroup var common: Common

    func run() throws {
        try watch.show(common) { style in
            var status = try common.status()
            status.pools = try filter.select(status)
            return try Self.shown(status, all: all, common, style)
        }
    }

    static func shown(_ status: Poold_V1_Status, all: Bool, _ common: Common, _ style: Style) throws -> String {
        common.json ? try status.json() + "\n" : text(status, all: all, style)
    }

    private static func text(_ status: Poold_V1_Status, all: Bool, _ style: Style) -> String {
        let pools = status.pools.filter { all || !$0.reserved || $0.health == "unavailable" }
        var lines = [
            "poold \(status.version.version), pid \(status.version.pid), up \(Format.age(status.uptimeNanoseconds)), \(Format.count(Int(status.connections), "connection"))"
        ]
        if !status.summary.isEmpty { lines += Format.wrap(status.summary, style.width ?? .max) }
        lines.append("")
        var table = Table([
            .left("POOL", canShrink: true), .left("HEALTH"), .right("READY"), .right("BUSY"), .right("QUEUED"), .right("WAIT", rank: 3),
            .right("RESULTS", rank: 1), .right("ERRORS", rank: 2), .right("REFUSED", rank: 4), .right("LOST", rank: 6), .right("DEATHS", rank: 5),
        ])
        for pool in pools {
            let counters = pool.counters
            let ready = pool.readyWorkers
            table.add([
                Cell(pool.name), .state(pool.health), Cell("\(ready)/\(pool.wanted)", ready < Int(pool.wanted) ? .warning : .plain), "\(pool.busyWorkers)",
                "\(pool.queuedCalls)", Cell(Format.span(pool.predictedWaitNanoseconds)), "\(counters.results)",
                "\(counters.errors + counters.timeouts)", "\(counters.refused)", "\(counters.workerLost)", "\(counters.deaths)",
            ])
        }
        lines += table.lines(style)
        if pools.isEmpty { lines += Format.wrap("no pool is configured; add one to the configuration and `poolctl reload`", style.width ?? 80) }
        for pool in pools { lines += problems(pool, style) }
        return lines.joined(separator: "\n") + "\n"
    }

    /// What an operator should look at.
    static func problems(_ pool: Poold_V1_Pool, _ style: Style) -> [String] {
        var lines: [String] = []
        let width = style.width ?? .max
        if !pool.circuit.isEmpty && pool.circuit != "closed" {
            lines += Format.wrap("\(pool.name): circuit breaker \(pool.circuit): workers died in a row; see `poolctl post-mortem \(pool.name)`", width)
        }
        if pool.template == "failed" && pool.failure.isEmpty {
            lines += Format.wrap("\(pool.name): the template failed, workers start cold; see `poolctl events \(pool.name)`", width)
        }
        if pool.quarantined > 0 {
            lines += Format.wrap("\(pool.name): \(pool.quarantined) in quarantine; see `poolctl quarantine \(pool.name)`", width)
        }
        if !pool.failure.isEmpty {
            lines.append(style.paint("\(pool.name): cannot start a worker:", .bad))
            lines += Format.lines(pool.failure, indent: 2)
        }
        return lines.isEmpty ? [] : [""] + lines
    }
}

extension Poold_V1_Pool {
    var readyWorkers: Int { workers.count { $0.phase == "ready" } }
    var busyWorkers: Int { workers.count { $0.outstanding > 0 } }
    /// Workers that come or go.
    var movingWorkers: Int { workers.count { $0.phase != "ready" } }
}

extension Poold_V1_Worker {
    var name: String { "\(slot).\(generation)" }
}
