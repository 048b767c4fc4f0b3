import Foundation
import Histogram
import PoolProtocol

/// What a run has shown, as Markdown for people and as JSON.
struct ChaosReport {
    let run: ChaosRun
    let command: String

    private var tally: ChaosTally { run.board.with { $0 } }

    var markdown: String {
        let state = tally
        let calls = run.load.tally
        var lines = ["# Chaos", "", "    \(command)", ""]
        lines.append(state.violations.isEmpty ? "No violation." : "**\(state.violations.count) violations.** The first: \(state.violations[0])")
        lines += ["", "| Calls | |", "| --- | ---: |", "| made | \(calls.issued) |", "| result, content verified | \(calls.results) |"]
        for (status, count) in calls.errors.sorted(by: { $0.value > $1.value }) { lines.append("| \(status) | \(count) |") }
        lines.append("| open on a connection that the client closed | \(calls.closed) |")
        lines.append("| without an end | \(run.load.open.count) |")
        lines.append("| of those in the workers' journal | \(run.load.journal.count), \(run.journalProblems) contradictions |")
        lines.append("| arrivals by poold's counters, of the pools compared | \(run.counters.arrived) |")
        if calls.late > 0 { lines.append("| not made: the generator was late | \(calls.late) |") }
        lines += ["", "| Latency of results, ms | p50 | p99 | p99.9 | calls |", "| --- | ---: | ---: | ---: | ---: |"]
        for (name, histogram) in [("without a fault at work", calls.calmLatency), ("all", calls.latency)] where histogram.totalCount > 0 {
            let values = [50.0, 99, 99.9].map { "\(Report.rounded(Double(histogram.valueAtPercentile($0)) / 1000))" }
            lines.append("| \(name) | \(values.joined(separator: " | ")) | \(histogram.totalCount) |")
        }
        lines += ["", "| poold and its processes | beginning | end |", "| --- | ---: | ---: |"]
        for (name, value) in rest { lines.append("| \(name) | \(value(run.baseline)) | \(value(run.final)) |") }
        if let memory = run.memory {
            lines.append(
                "| resident memory of poold under load, MiB (medians of the second and last tenth) | \(mebibytes(memory.first)) | \(mebibytes(memory.last)) |")
            lines.append("| its slope, KiB a minute | | \(Report.rounded(memory.slope)) |")
        }
        lines.append("| CPU seconds of poold, of the generator | | \(Report.rounded(run.serverCPU)), \(Report.rounded(run.ownCPU)) |")
        let pings = state.samples.map { Double($0.pingMicroseconds) }
        lines.append("| connect and PING, ms (median, worst) | \(Report.rounded(Report.median(pings) / 1000)) | \(Report.rounded((pings.max() ?? 0) / 1000)) |")
        lines.append("| exit status after SIGTERM, seconds it took | \(run.exitStatus.map { "\($0)" } ?? "killed") | \(Report.rounded(run.shutdownSeconds)) |")
        lines.append("| processes left | | \(run.survivors) |")
        lines += ["", "| Fault | times | not possible |", "| --- | ---: | ---: |"]
        for kind in FaultKind.allCases { lines.append("| \(kind.rawValue) | \(state.faults[kind] ?? 0) | \(state.skipped[kind] ?? 0) |") }
        lines.append("| all | \(state.faults.values.reduce(0, +)) | \(state.skipped.values.reduce(0, +)) |")
        return lines.joined(separator: "\n") + "\n"
    }

    private var rest: [(String, (ChaosState) -> String)] {
        [
            ("descriptors of poold", { "\($0.descriptors)" }), ("connections of callers", { "\($0.connections)" }), ("processes", { "\($0.processes)" }),
            ("threads of poold", { "\($0.threads)" }), ("resident memory of poold at rest, MiB", { mebibytes(Double($0.residentKiB)) }),
            ("private memory of workers and templates, MiB", { "\($0.privateMiB)" }),
        ]
    }

    private func mebibytes(_ kibibytes: Double) -> String { "\(Report.rounded(kibibytes / 1024))" }

    var json: String {
        let state = tally
        let calls = run.load.tally
        var object: [String: Any] = [
            "command": command, "seed": run.seed, "violations": state.violations, "made": calls.issued, "results": calls.results, "errors": calls.errors,
            "closed": calls.closed, "lost": run.load.open.count, "journal": run.load.journal.count, "journal_contradictions": run.journalProblems,
            "faults": Dictionary(uniqueKeysWithValues: state.faults.map { ($0.key.rawValue, $0.value) }),
            "faults_not_possible": Dictionary(uniqueKeysWithValues: state.skipped.map { ($0.key.rawValue, $0.value) }),
            "exit_status": run.exitStatus.map { Int($0) } ?? -1, "shutdown_seconds": run.shutdownSeconds, "survivors": run.survivors,
        ]
        for (name, rest) in [("beginning", run.baseline), ("end", run.final)] {
            object[name] = [
                "descriptors": rest.descriptors, "connections": rest.connections, "processes": rest.processes, "threads": rest.threads,
                "resident_kib": rest.residentKiB, "private_mib": rest.privateMiB,
            ]
        }
        for (name, histogram) in [("latency_calm_us", calls.calmLatency), ("latency_us", calls.latency)] where histogram.totalCount > 0 {
            object[name] = ["p50": histogram.valueAtPercentile(50), "p99": histogram.valueAtPercentile(99), "p99_9": histogram.valueAtPercentile(99.9)]
        }
        if let memory = run.memory { object["memory_kib"] = ["second_tenth": memory.first, "last_tenth": memory.last, "slope_a_minute": memory.slope] }
        guard let data = try? JSONSerialization.data(withJSONObject: object, options: [.prettyPrinted, .sortedKeys]) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }
}
