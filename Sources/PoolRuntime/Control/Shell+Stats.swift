import PoolConfig
import PoolCore
import PoolProtocol
import PoolWire

extension Shell {
    /// One pool, or all that callers see. A pool that is poold's own must be asked for by name.
    mutating func statsMessage(_ name: String) throws -> Poold_V1_Stats {
        var message = Poold_V1_Stats()
        var scratch = StatsScratch()
        if !name.isEmpty {
            message.pools.append(poolStats(try find(name), &scratch))
            return message
        }
        for pool in 0..<poolCount where !pools[pool].isRemoved && !pools[pool].configuration.isReserved { message.pools.append(poolStats(pool, &scratch)) }
        return message
    }

    private mutating func poolStats(_ pool: Int, _ scratch: inout StatsScratch) -> Poold_V1_PoolStats {
        let stats = pools[pool].machine.stats(now: Instant(nanoseconds: now), using: &scratch)
        var message = Poold_V1_PoolStats()
        message.pool = pools[pool].configuration.name
        message.wanted = UInt32(stats.wanted)
        for phase in WorkerPhase.allCases {
            let workers = stats.phases[Int(phase.rawValue)]
            if workers > 0 { message.workers[phase.name] = UInt32(workers) }
        }
        message.queuedCalls = UInt32(stats.queuedCalls)
        message.predictedWaitNanoseconds = stats.predictedWait
        message.windows = stats.windows.map(Self.message)
        if let all = message.windows.first { message.workerCauses = all.workerCauses }
        for entry in stats.methods where Int(entry.method.index) < pools[pool].methods.count {
            var line = Poold_V1_MethodStats()
            line.method = pools[pool].methods[Int(entry.method.index)].name
            line.results = entry.results
            line.errors = entry.errors
            line.wait = Self.message(entry.spans[SpanKind.wait.rawValue])
            line.service = Self.message(entry.spans[SpanKind.service.rawValue])
            line.latency = Self.message(entry.spans[SpanKind.latency.rawValue])
            message.methods.append(line)
        }
        return message
    }

    private static func message(_ window: PoolStats.Window) -> Poold_V1_Window {
        var message = Poold_V1_Window()
        switch window.kind {
        case .start: message.name = "start"
        case .oneMinute: message.name = "1m"
        case .fiveMinutes: message.name = "5m"
        case .fifteenMinutes: message.name = "15m"
        }
        message.spanNanoseconds = window.span
        message.counters = Self.message(window.counters)
        if window.counters.errors > 0 { message.errors["applicationError"] = window.counters.errors }
        for reason in Refusal.Reason.allCases where window.refusals[Int(reason.rawValue)] > 0 {
            message.errors["refused.\(reason)"] = window.refusals[Int(reason.rawValue)]
        }
        for outcome in Outcome.allCases where window.outcomes[Int(outcome.rawValue)] > 0 {
            message.errors["\(outcome)"] = window.outcomes[Int(outcome.rawValue)]
        }
        for cause in WorkerCause.allCases where window.causes[Int(cause.rawValue)] > 0 {
            message.workerCauses[cause.name] = window.causes[Int(cause.rawValue)]
        }
        message.utilization = window.utilization
        message.meanQueueDepth = window.meanQueueDepth
        message.maximumQueueDepth = UInt32(window.maximumQueueDepth)
        if window.span > 0 { message.throughput = Double(window.counters.results) * 1e9 / Double(window.span) }
        message.wait = Self.message(window.spans[SpanKind.wait.rawValue])
        message.service = Self.message(window.spans[SpanKind.service.rawValue])
        message.latency = Self.message(window.spans[SpanKind.latency.rawValue])
        return message
    }

    private static func message(_ quantiles: SpanQuantiles) -> Poold_V1_Quantiles {
        var message = Poold_V1_Quantiles()
        message.count = quantiles.count
        message.mean = quantiles.mean
        message.minimum = quantiles.minimum
        message.p50 = quantiles.p50
        message.p90 = quantiles.p90
        message.p95 = quantiles.p95
        message.p99 = quantiles.p99
        message.p999 = quantiles.p999
        message.maximum = quantiles.maximum
        return message
    }

    static func message(_ counters: PoolCounters) -> Poold_V1_Counters {
        var message = Poold_V1_Counters()
        message.arrived = counters.arrived
        message.refused = counters.refused
        message.results = counters.results
        message.errors = counters.errors
        message.timeouts = counters.timeouts
        message.cancelled = counters.cancelled
        message.abandoned = counters.abandoned
        message.workerLost = counters.workerLost
        message.dropped = counters.dropped
        message.retried = counters.retried
        message.takenBack = counters.takenBack
        message.spawned = counters.spawned
        message.startFailures = counters.startFailures
        message.deaths = counters.deaths
        message.recycled = counters.recycled
        message.kills = counters.kills
        return message
    }
}

// Names of what comes many times in a status: to describe an enumeration anew each time costs more than all else in it.

extension WorkerPhase {
    private static let names = allCases.map { "\($0)" }
    var name: String { Self.names[Int(rawValue)] }
}

extension WorkerCause {
    private static let names = allCases.map { "\($0)" }
    var name: String { Self.names[Int(rawValue)] }
}

extension Codec {
    var name: String {
        switch self {
        case .bytes: return "bytes"
        case .json: return "json"
        case .messagePack: return "messagePack"
        }
    }
}
