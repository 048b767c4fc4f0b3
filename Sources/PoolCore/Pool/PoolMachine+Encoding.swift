extension PoolMachine {
    /// Raised when the layout changes. Version 2: tables that outgrew the policy, calls for one worker alone; 3: metrics.
    static let encodingVersion: UInt32 = 3

    /// The whole state as bytes. `decoded` reads them back. (`mutating` only because one function serves both directions.)
    package mutating func encoded() -> [UInt8] {
        var coder = StateCoder()
        var version = Self.encodingVersion
        coder.code(&version)
        policy.code(&coder)
        code(&coder)
        return coder.finished()
    }

    /// Unknown versions and damaged bytes are errors.
    package static func decoded(_ bytes: [UInt8]) throws(StateCodingError) -> PoolMachine {
        var coder = try StateCoder(reading: bytes)
        var version: UInt32 = 0
        coder.code(&version)
        guard version == encodingVersion else { throw .unknownVersion(version) }
        var policy = PoolPolicy()
        policy.code(&coder)
        var machine = PoolMachine(policy: policy, seed: 0)
        machine.code(&coder)
        try coder.check()
        return machine
    }

    private mutating func code(_ coder: inout StateCoder) {
        coder.code(&random.state)
        coder.code(&now)
        calls.code(&coder)
        queue.code(&coder)
        times.code(&coder)
        timers.code(&coder)
        sessions.code(&coder)
        coder.code(&workers, empty: WorkerRecord()) { $0.code(&$1) }
        coder.code(&sent, empty: SentCall()) { $0.code(&$1) }
        coder.code(&ringMask)
        coder.code(&usedSlots)
        coder.code(&idleHead)
        coder.code(&idleTail)
        coder.code(&readyCount)
        coder.code(&startingCount)
        coder.code(&outstandingCalls)
        coder.code(&outstandingWork)
        coder.code(&pinnedCalls)
        coder.code(&wanted)
        coder.code(&wasReady)
        coder.code(&draining)
        coder.code(&shuttingDown)
        coder.code(&ending)
        coder.code(&killingAll)
        coder.code(&isStopped)
        coder.code(&health)
        coder.code(&failedStarts)
        coder.code(&backOffUntil)
        coder.code(&restartDebtUntil)
        coder.code(&killDebtUntil)
        coder.code(&circuit)
        coder.code(&circuitCount)
        coder.code(&circuitUntil)
        coder.code(&circuitSpan)
        coder.code(&probe)
        coder.code(&suspects, empty: Suspect()) { suspect, coder in
            coder.code(&suspect.hash)
            coder.code(&suspect.deaths)
            coder.code(&suspect.method)
            coder.code(&suspect.last)
        }
        coder.code(&aboveTargetSince)
        coder.code(&overloaded)
        coder.code(&shedNext)
        coder.code(&shedCount)
        counters.code(&coder)
        coder.code(&busyCount)
        metrics.code(&coder)
    }
}

extension PoolPolicy {
    mutating func code(_ coder: inout StateCoder) {
        coder.code(&workers)
        coder.code(&minimumWorkers)
        coder.code(&maximumWorkers)
        coder.code(&surge)
        coder.code(&startingAtOnce)
        coder.code(&window)
        coder.code(&aheadSpan)
        coder.code(&maximumQueuedCalls)
        coder.code(&maximumQueuedBytes)
        coder.code(&maximumQueuedBytesPerIdentity)
        coder.code(&overload)
        coder.code(&overloadTarget)
        coder.code(&overloadInterval)
        coder.code(&defaultBudget)
        coder.code(&maximumBudget)
        coder.code(&maximumAttempts)
        coder.code(&overrun)
        coder.code(&hangAfter)
        coder.code(&killAllowance)
        coder.code(&killRefill)
        coder.code(&startTimeout)
        coder.code(&drainGrace)
        coder.code(&terminateGrace)
        coder.code(&maximumAge)
        coder.code(&maximumCalls)
        coder.code(&maximumPrivateBytes)
        coder.code(&measureInterval)
        coder.code(&recycleJitterPercent)
        coder.code(&backOffBase)
        coder.code(&backOffMaximum)
        coder.code(&stableAfter)
        coder.code(&unavailableAfter)
        coder.code(&circuitFailures)
        coder.code(&circuitSuccesses)
        coder.code(&circuitOpenFor)
        coder.code(&quarantineDeaths)
        coder.code(&quarantineFor)
        coder.code(&healthInterval)
        coder.code(&healthTimeout)
        coder.code(&healthFailures)
        coder.code(&affinity)
        coder.code(&sessionTimeToLive)
        coder.code(&maximumSessions)
        coder.code(&maximumSessionsPerIdentity)
    }
}

extension PoolCounters {
    mutating func code(_ coder: inout StateCoder) {
        coder.code(&arrived)
        coder.code(&refused)
        coder.code(&results)
        coder.code(&errors)
        coder.code(&timeouts)
        coder.code(&cancelled)
        coder.code(&abandoned)
        coder.code(&workerLost)
        coder.code(&dropped)
        coder.code(&retried)
        coder.code(&takenBack)
        coder.code(&spawned)
        coder.code(&startFailures)
        coder.code(&deaths)
        coder.code(&recycled)
        coder.code(&kills)
    }
}
