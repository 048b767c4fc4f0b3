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
        lines.append("| an error, below by its reason | \(calls.errors.values.reduce(0, +)) |")
        lines.append("| open on a connection that the client closed | \(calls.closed) |")
        lines.append("| without an end | \(run.load.open.count) |")
        lines.append("| of those in the workers' journal | \(run.load.journal.count), \(run.journalProblems) contradictions |")
        lines.append("| arrivals by poold's counters, of the pools compared | \(run.counters.arrived) |")
        if calls.late > 0 { lines.append("| not made: the generator was late | \(calls.late) |") }
        lines += ["", "| Calls without a result | all | asked for it | a fault at work in the pool | machine busy | budget below 1 s | nothing of these |"]
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for (status, reasons) in calls.ends.sorted(by: { $0.value.reduce(0, +) > $1.value.reduce(0, +) }) {
            lines.append("| \(status) | \(reasons.reduce(0, +)) | \(reasons.map { "\($0)" }.joined(separator: " | ")) |")
        }
        lines += ["", "| Without a fault at work in the pool | |", "| --- | ---: |", "| calls made | \(peace(\.madeInPeace)) |"]
        lines.append("| overloaded for no reason, at most 1 in 1,000 of each pool | \(peace(\.overloadedInPeace)) |")
        lines.append("| out of time for no reason, at most 1 in 10,000 | \(peace(\.timeoutsInPeace)) |")
        lines.append("| either, with a budget below 1 s, at most 1 in 10 of \(peace(\.madeShortInPeace)) | \(peace(\.shortInPeace)) |")
        lines.append("| time that the machine was busy | \(busyPercent) % |")
        lines += ["", "| Latency of results, ms | p50 | p99 | p99.9 | calls |", "| --- | ---: | ---: | ---: | ---: |"]
        for (name, histogram) in [("without a fault at work", calls.calmLatency), ("all", calls.latency)] where histogram.totalCount > 0 {
            let values = [50.0, 99, 99.9].map { "\(Report.rounded(Double(histogram.valueAtPercentile($0)) / 1000))" }
            lines.append("| \(name) | \(values.joined(separator: " | ")) | \(histogram.totalCount) |")
        }
        lines += ["", "| poold and its processes | beginning | end |", "| --- | ---: | ---: |"]
        for (name, value) in rest { lines.append("| \(name) | \(value(run.baseline)) | \(value(run.final)) |") }
        if let memory = run.memory {
            lines.append("| resident memory of poold, second half under load, MiB (median of \(memory.samples)) | | \(mebibytes(memory.median)) |")
            lines.append("| its growth there by Theil and Sen's slope; what may be chance, MiB | | \(mebibytes(memory.growth)); \(mebibytes(memory.noise)) |")
        } else {
            let (samples, seconds) = (MemoryTrend.leastSamples, Int(MemoryTrend.leastSeconds))
            lines.append("| growth of poold's memory | | not judged: a run needs \(samples) samples over \(seconds) s in its second half |")
        }
        lines.append("| resident memory of the generator, MiB | | \(mebibytes(Double(run.ownResidentKiB))) |")
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

    private func peace(_ value: KeyPath<CallTally.PoolTally, UInt64>) -> UInt64 { run.load.tally.pools.reduce(0) { $0 + $1[keyPath: value] } }
    private var busyPercent: Int { run.load.machine.busyIntervals * 100 / max(1, run.load.machine.intervals) }

    private func mebibytes(_ kibibytes: Double) -> String { "\(Report.rounded(kibibytes / 1024))" }

    var json: String {
        let state = tally
        let calls = run.load.tally
        var object: [String: Any] = [
            "command": command, "seed": run.seed, "violations": state.violations, "made": calls.issued, "results": calls.results, "errors": calls.errors,
            "made_in_peace": peace(\.madeInPeace), "overloaded_in_peace": peace(\.overloadedInPeace), "timeouts_in_peace": peace(\.timeoutsInPeace),
            "short_made_in_peace": peace(\.madeShortInPeace), "short_errors_in_peace": peace(\.shortInPeace), "busy_percent": busyPercent,
            "generator_resident_kib": run.ownResidentKiB,
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
        if let memory = run.memory {
            object["memory_kib"] = ["median": memory.median, "growth": memory.growth, "noise": memory.noise, "slope_a_minute": memory.slope * 60]
        } else {
            object["memory_kib"] = "not judged: too short a run"
        }
        guard let data = try? JSONSerialization.data(withJSONObject: object, options: [.prettyPrinted, .sortedKeys]) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }
}
