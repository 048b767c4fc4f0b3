extension PoolMachine {
    /// Time has passed: comes before anything changes.
    @inline(__always) mutating func advanceMetrics() {
        metrics.advance(to: now, busy: busyCount, ready: readyCount, queued: queue.count + pinnedCalls, counters)
    }

    /// A worker's reply ends a call.
    @inline(__always) mutating func measureReply(_ index: Int, _ method: UInt16, isResult: Bool) {
        let arrived = calls.records[index].arrived
        metrics.noteReply(method, isResult: isResult)
        metrics.histograms.record(method, .wait, calls.records[index].sentAt.since(arrived))
        metrics.histograms.record(method, .latency, now.since(arrived))
    }

    /// poold ends a call itself. `began` is what is known of its last worker, whatever the caller is told.
    mutating func measureEnd(_ index: Int, _ outcome: Outcome, began: Bool) {
        metrics.note(outcome)
        switch outcome {
        case .cancelledWaiting, .cancelledRunning: return
        case .timeoutWaiting, .timeoutRunning, .workerLost, .draining, .shed, .unavailable, .sessionLost: break
        }
        let record = calls.records[index]
        metrics.histograms.record(record.method, .wait, (began ? record.sentAt : now).since(record.arrived))
        metrics.histograms.record(record.method, .latency, now.since(record.arrived))
    }

    /// A worker goes from one phase to the next: counts who is busy, and births and departures by their causes.
    mutating func measurePhase(_ slot: Int, from old: WorkerPhase, to phase: WorkerPhase, _ cause: WorkerCause) {
        if old == .ready && workers[slot].outstanding > 0 { busyCount -= 1 }
        switch phase {
        case .spawning: metrics.note(cause)
        case .starting: return
        case .ready: metrics.note(cause)
        case .empty, .draining, .terminating, .killing:
            switch old {
            case .spawning, .starting, .ready: metrics.note(cause.ofDeparture)
            // On its way out already; only what hastens it is new.
            case .empty, .draining, .terminating, .killing:
                if phase != .empty && cause != workers[slot].cause { metrics.note(cause.ofDeparture) }
            }
        }
    }

    /// All that is counted, up to `now`. Costs some tens of microseconds, and a few more for every method.
    package mutating func stats(now: Instant, using scratch: inout StatsScratch) -> PoolStats {
        if now > self.now { self.now = now }
        advanceMetrics()
        var stats = PoolStats()
        stats.wanted = wanted
        for slot in 0..<usedSlots where workers[slot].phase != .empty { stats.phases[Int(workers[slot].phase.rawValue)] += 1 }
        stats.queuedCalls = queue.count + pinnedCalls
        stats.predictedWait = readyCount > 0 ? (queue.work &+ outstandingWork) / UInt64(readyCount) : 0
        scratch.removeAll()
        for method in 0..<metrics.methods {
            let (results, errors) = metrics.replies(method)
            var entry = PoolStats.Method(method: MethodID(index: UInt16(method)), results: results, errors: errors, spans: [])
            for kind in SpanKind.allCases {
                scratch.method.removeAll()
                metrics.histograms.add(method, kind, to: &scratch.method)
                scratch.sinceStart[kind.rawValue].add(scratch.method)
                entry.spans.append(scratch.method.quantiles)
            }
            if entry.spans.contains(where: { $0.count > 0 }) { stats.methods.append(entry) }
        }
        stats.windows = metrics.windows(counters, using: &scratch)
        return stats
    }

    /// Adds the latencies of the last minute: of all pools together, that is what the summary shows.
    package mutating func addRecentLatency(now: Instant, to merged: inout MergedHistogram) {
        if now > self.now { self.now = now }
        advanceMetrics()
        metrics.addLastMinute(.latency, to: &merged)
    }

    /// What the summary counts; O(1).
    package var load: (ready: Int, wanted: Int, queued: Int) { (readyCount, wanted, queue.count + pinnedCalls) }
}

extension WorkerCause {
    /// The cause of an end: a worker that merely ended is not counted among those that were started.
    package var ofDeparture: WorkerCause {
        switch self {
        case .wanted, .replaced, .becameReady: return .exited
        case .spawnFailed, .setupFailed, .startTimeout, .scaledDown, .age, .calls, .memory, .operatorRecycle, .operatorKill, .hung, .unhealthy,
            .protocolFault, .socketClosed, .exited, .crashed, .shutdown, .graceOver:
            return self
        }
    }
}
