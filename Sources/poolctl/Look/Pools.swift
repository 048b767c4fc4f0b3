import ArgumentParser
import PoolProtocol

struct Pools: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "pools", abstract: "Show pools in full: bounds, queue, counters, methods.",
        usage: "poolctl pools [<pool>] [--watch [<seconds>]] [options]",
        discussion: """
            EXAMPLES
              poolctl pools text
              poolctl pools --json
            """)
    @OptionGroup var filter: PoolFilter
    @OptionGroup var watch: Watch
    @OptionGroup var common: Common

    func run() throws {
        try watch.show(common) { style in
            var status = try common.status()
            status.pools = try filter.select(status)
            if common.json { return try status.json() + "\n" }
            return status.pools.map { Self.text($0, style).joined(separator: "\n") + "\n" }.joined(separator: "\n")
        }
    }

    static func text(_ pool: Poold_V1_Pool, _ style: Style) -> [String] {
        var lines = [pool.name + "  " + style.paint(pool.health, Tone.of(pool.health)) + (pool.reserved ? "  (poold's own)" : "")]
        func line(_ name: String, _ text: String) {
            let wrapped = Format.wrap(text, style.width ?? .max, indent: 14)
            lines.append("  " + Format.pad(name, 12) + (wrapped.first ?? "").dropFirst(14))
            lines += wrapped.dropFirst()
        }
        let counters = pool.counters
        line("module", pool.module)
        let bounds = pool.maximumWorkers > 0 ? ", bounds \(pool.minimumWorkers) to \(pool.maximumWorkers)" : ""
        line("workers", "\(pool.readyWorkers) ready of \(pool.wanted) wanted, \(pool.busyWorkers) busy\(bounds)")
        line("template", pool.template + (pool.templatePid > 0 ? ", pid \(pool.templatePid)" : ""))
        if pool.warmCommands > 0 { line("warming", Format.count(Int(pool.warmCommands), "command")) }
        line("circuit", pool.circuit)
        line(
            "queue",
            "\(Format.count(Int(pool.queuedCalls), "call")), \(Format.bytes(pool.queuedBytes)); predicted wait \(Format.span(pool.predictedWaitNanoseconds))")
        line("at workers", "\(Format.count(Int(pool.outstanding), "call")), \(Format.count(Int(pool.sessions), "session"))")
        line(
            "calls",
            "\(counters.arrived) arrived, \(counters.results) results, \(counters.errors) errors, \(counters.refused) refused, "
                + "\(counters.timeouts) timeouts, \(counters.cancelled) cancelled, \(counters.abandoned) abandoned, \(counters.workerLost) worker lost, "
                + "\(counters.dropped) dropped, \(counters.retried) retried")
        line(
            "processes",
            "\(counters.spawned) spawned, \(counters.startFailures) failed to start, \(counters.deaths) deaths, \(counters.recycled) recycled, \(counters.kills) kills"
        )
        line("methods", pool.methods.map { "\($0.name) (\($0.codec)\($0.idempotent ? ", idempotent" : ""))" }.joined(separator: ", "))
        lines += StatusCommand.problems(pool, style).dropFirst()
        return lines
    }
}
