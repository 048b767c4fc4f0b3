import ArgumentParser
import PoolClient
import PoolProtocol

struct StatsCommand: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "stats", abstract: "Show calls, errors, load and times since the start and of late.",
        usage: "poolctl stats [<pool>] [--methods] [--watch [<seconds>]] [options]",
        discussion: """
            Windows: since the start, and the last 1, 5 and 15 minutes. Wait: until a
            worker was given the call. Service: as the worker measured it. Latency:
            from arrival to end in poold. Utilization: busy over ready worker time.

            EXAMPLES
              poolctl stats text
              poolctl stats --methods
              poolctl stats --watch 5
            """)
    @OptionGroup var filter: PoolFilter
    @Flag(help: "Only the table of methods.") var methods = false
    @OptionGroup var watch: Watch
    @OptionGroup var common: Common

    func run() throws {
        try watch.show(common) { style in
            let stats = try gather()
            if common.json { return try stats.json() + "\n" }
            return stats.pools.map { pool in
                let lines = methods ? StatsText.methods(pool, style) : StatsText.pool(pool, style)
                return lines.joined(separator: "\n") + "\n"
            }.joined(separator: "\n")
        }
    }

    /// Pool by pool, so that no question holds up poold's loop for longer than one pool takes.
    private func gather() throws -> Poold_V1_Stats {
        let connection = try common.connectControl()
        if filter.pool != nil { return try common.ask(.stats, filter.message, pool: filter.pool, on: connection) }
        let status: Poold_V1_Status = try common.ask(.status, on: connection)
        var all = Poold_V1_Stats()
        for pool in status.pools where !pool.reserved {
            var request = Poold_V1_PoolFilter()
            request.pool = pool.name
            do throws(PoolError) {
                let one: Poold_V1_Stats = try common.ask(.stats, request, on: connection)
                all.pools += one.pools
            } catch {
                // A reload has taken it away meanwhile.
                guard error.status == "no_such_pool" else { throw error }
            }
        }
        return all
    }
}

/// One pool's figures, windows side by side.
enum StatsText {
    static func pool(_ pool: Poold_V1_PoolStats, _ style: Style) -> [String] {
        var lines = [pool.pool]
        let phases = pool.workers.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        lines += Format.wrap(
            "workers: \(phases.isEmpty ? "none" : phases) (wanted \(pool.wanted)); \(pool.queuedCalls) queued, predicted wait \(Format.span(pool.predictedWaitNanoseconds))",
            style.width ?? 80, indent: 2)
        lines.append("")
        var table = Table([.left("")] + pool.windows.map { .right(title($0)) })
        func row(_ name: String, _ value: (Poold_V1_Window) -> String) { table.add([Cell(name)] + pool.windows.map { Cell(value($0)) }) }
        row("calls arrived") { "\($0.counters.arrived)" }
        row("results") { "\($0.counters.results)" }
        row("application errors") { "\($0.counters.errors)" }
        let kinds = Set(pool.windows.flatMap { $0.errors.keys }).subtracting(["application_error", "applicationError", "error", "errors"]).sorted()
        for kind in kinds { row(kind) { "\($0.errors[kind] ?? 0)" } }
        row("results a second") { Format.threeDigits($0.throughput) }
        row("utilization") { Format.percent($0.utilization) }
        row("queue depth, mean") { Format.threeDigits($0.meanQueueDepth) }
        row("queue depth, most") { "\($0.maximumQueueDepth)" }
        for (name, path) in [("wait", \Poold_V1_Window.wait), ("service", \.service), ("latency", \.latency)] {
            // A pool that nobody has called yet: one line instead of seven empty ones.
            guard pool.windows.contains(where: { $0[keyPath: path].count > 0 }) else {
                row(name) { _ in "–" }
                continue
            }
            row("\(name) mean") { $0[keyPath: path].count == 0 ? "–" : Format.span(UInt64($0[keyPath: path].mean)) }
            for (label, quantile) in quantiles { row("\(spaces(name)) \(label)") { span($0[keyPath: path], quantile) } }
        }
        lines += table.lines(style, indent: 2)
        if !pool.workerCauses.isEmpty {
            let causes = pool.workerCauses.sorted { $0.value != $1.value ? $0.value > $1.value : $0.key < $1.key }.map { "\($0.key) \($0.value)" }
            lines += [""] + Format.wrap("workers by cause, since the start: " + causes.joined(separator: ", "), style.width ?? 80, indent: 2)
        }
        if !pool.methods.isEmpty { lines += [""] + methods(pool, style) }
        return lines
    }

    static func methods(_ pool: Poold_V1_PoolStats, _ style: Style) -> [String] {
        if pool.methods.isEmpty { return ["  \(Format.visible(pool.pool)): no call has ended yet"] }
        var table = Table([
            .left("METHOD", canShrink: true), .right("RESULTS"), .right("ERRORS"), .right("WAIT p50", rank: 5), .right("WAIT p99", rank: 4),
            .right("SERVICE p50", rank: 1), .right("SERVICE p99", rank: 1), .right("LATENCY p50", rank: 3), .right("LATENCY p99", rank: 2),
            .right("LATENCY p99.9", rank: 6),
        ])
        for method in pool.methods {
            table.add([
                Cell(Format.visible("\(pool.pool).\(method.method)")), "\(method.results)", "\(method.errors)", Cell(span(method.wait, \.p50)),
                Cell(span(method.wait, \.p99)), Cell(span(method.service, \.p50)), Cell(span(method.service, \.p99)), Cell(span(method.latency, \.p50)),
                Cell(span(method.latency, \.p99)), Cell(span(method.latency, \.p999)),
            ])
        }
        return table.lines(style, indent: 2)
    }

    private static var quantiles: [(String, KeyPath<Poold_V1_Quantiles, UInt64>)] {
        [
            ("p50", \.p50), ("p90", \.p90), ("p95", \.p95), ("p99", \.p99), ("p99.9", \.p999), ("most", \.maximum),
        ]
    }

    private static func span(_ quantiles: Poold_V1_Quantiles, _ path: KeyPath<Poold_V1_Quantiles, UInt64>) -> String {
        guard quantiles.count > 0 else { return "–" }
        let span = quantiles[keyPath: path]
        return Format.span(span < shortest ? 0 : span)
    }

    /// Nanoseconds: poold does not tell shorter spans apart. A quantile is the upper end of their bucket, and in the mean they count as 0.
    private static let shortest: UInt64 = 128

    private static func spaces(_ text: String) -> String { String(repeating: " ", count: text.count) }

    /// The window's name; with what it covers really while poold is young.
    private static func title(_ window: Poold_V1_Window) -> String {
        window.name == "start" ? "start \(Format.age(window.spanNanoseconds))" : window.name
    }
}
