/// A body that workers died with.
struct Suspect: BitwiseCopyable {
    var hash: UInt64 = 0
    var deaths: UInt32 = 0
    var method: UInt16 = 0
    var last = Instant.zero
}

extension PoolMachine {
    package static let maximumSuspects = 256
    /// Restarts of workers that had served, allowed at once; one more every `backOffBase`.
    static let restartBurst: UInt64 = 16

    // MARK: - Back-off

    /// A start failed: the next one waits, twice as long each time.
    mutating func startFailed(_ effects: inout EffectBuffer) {
        counters.startFailures += 1
        failedStarts = min(failedStarts + 1, 1_000)
        backOff(exponent: failedStarts - 1, &effects)
        if failedStarts >= policy.unavailableAfter && readyCount == 0 { flush(.unavailable, &effects) }
    }

    private mutating func backOff(exponent: Int, _ effects: inout EffectBuffer) {
        let shift = UInt64(min(exponent, 20))
        let span = min(policy.backOffBase << shift, policy.backOffMaximum)
        let varied = random.jitter(span, percent: 10)
        backOffUntil = max(backOffUntil, now + varied)
        effects.append(.publish(.backingOff(varied)))
    }

    /// A worker that was ready died unasked.
    mutating func died(calls: UInt64, lived: Nanoseconds, _ effects: inout EffectBuffer) {
        if calls == 0 && lived < policy.stableAfter {
            startFailed(&effects)
        } else {
            restartDebtUntil = max(restartDebtUntil, now) + policy.backOffBase
        }
        guard policy.circuitFailures > 0 else { return }
        switch circuit {
        case .closed:
            circuitCount += 1
            if circuitCount >= policy.circuitFailures { openCircuit(&effects) }
        case .halfOpen:
            let longest = max(policy.circuitOpenFor, 60_000_000_000)
            circuitSpan = circuitSpan > longest / 2 ? longest : circuitSpan * 2
            openCircuit(&effects)
        case .open: return
        }
    }

    var restartsAllowedFrom: Instant {
        let burst = Self.restartBurst * policy.backOffBase
        return Instant(nanoseconds: restartDebtUntil.nanoseconds > burst ? restartDebtUntil.nanoseconds - burst : 0)
    }

    // MARK: - Circuit breaker

    mutating func openCircuit(_ effects: inout EffectBuffer) {
        circuit = .open
        circuitCount = 0
        circuitUntil = now + circuitSpan
        arm(.circuit, at: circuitUntil)
        effects.append(.publish(.circuit(.open)))
    }

    mutating func circuitTimer(_ effects: inout EffectBuffer) {
        switch circuit {
        case .open:
            circuit = .halfOpen
            circuitCount = 0
            effects.append(.publish(.circuit(.halfOpen)))
            serveQueue(&effects)
        case .closed, .halfOpen: return
        }
    }

    /// A worker answered a call.
    mutating func succeeded(_ slot: Int, _ effects: inout EffectBuffer) {
        switch circuit {
        case .closed: circuitCount = 0
        case .halfOpen:
            circuitCount += 1
            guard circuitCount >= policy.circuitSuccesses else { return }
            circuit = .closed
            circuitCount = 0
            circuitSpan = policy.circuitOpenFor
            effects.append(.publish(.circuit(.closed)))
            serveQueue(&effects)
        case .open: return
        }
    }

    // MARK: - Quarantine

    mutating func blamed(_ method: MethodID, _ hash: UInt64, _ effects: inout EffectBuffer) {
        guard policy.quarantineDeaths > 0 else { return }
        suspects.removeAll { now.since($0.last) > policy.quarantineFor }
        if let at = suspects.firstIndex(where: { $0.hash == hash && $0.method == method.index }) {
            suspects[at].deaths += 1
            suspects[at].last = now
            if Int(suspects[at].deaths) == policy.quarantineDeaths {
                effects.append(.publish(.quarantined(method: method, hash: hash)))
            }
            return
        }
        if suspects.count >= Self.maximumSuspects {
            // The one whose last death is longest ago makes room.
            var oldest = 0
            for at in suspects.indices where suspects[at].last < suspects[oldest].last { oldest = at }
            suspects.remove(at: oldest)
        }
        suspects.append(Suspect(hash: hash, deaths: 1, method: method.index, last: now))
        if policy.quarantineDeaths == 1 { effects.append(.publish(.quarantined(method: method, hash: hash))) }
    }

    /// Bodies of arriving calls must be hashed: something is in quarantine.
    package var wantsBodyHash: Bool {
        for suspect in suspects where Int(suspect.deaths) >= policy.quarantineDeaths { return true }
        return false
    }

    func isQuarantined(_ hash: UInt64) -> Bool {
        for suspect in suspects where suspect.hash == hash && Int(suspect.deaths) >= policy.quarantineDeaths {
            return now.since(suspect.last) <= policy.quarantineFor
        }
        return false
    }

    // MARK: - Hung workers

    /// A call has outrun its budget, or its caller has gone, while it runs.
    mutating func overran(_ slot: Int, _ number: UInt64, _ effects: inout EffectBuffer) {
        workers[slot].overrun = max(workers[slot].overrun, number)
        guard workers[slot].phase == .ready else { return }
        switch policy.overrun {
        // It may take its time, unless the worker is on its way out: then nobody gains by it.
        case .finish: guard workers[slot].leaving else { return }
        case .cancel: break
        case .replace: recycle(id(slot), .hung, &effects)
        }
        if !timers.isArmed(node(slot, .hang)) { arm(slot, .hang, at: now + policy.hangAfter) }
    }

    /// A call was not begun although the worker had nothing else to do: it does not take calls. It gets no more until it
    /// answers, and is ended as hung if it does not, whatever the policy says of calls that run.
    mutating func doesNotBegin(_ slot: Int, _ number: UInt64) {
        workers[slot].overrun = max(workers[slot].overrun, number)
        guard workers[slot].phase == .ready, !timers.isArmed(node(slot, .hang)) else { return }
        arm(slot, .hang, at: now + policy.hangAfter)
    }

    mutating func hangTimer(_ slot: Int, _ effects: inout EffectBuffer) {
        guard workers[slot].phase == .ready, workers[slot].overrun != 0, workers[slot].first <= workers[slot].overrun
        else { return }
        // No caller with absurd budgets burns a pool of warm workers.
        let burst = UInt64(max(policy.killAllowance, 1)) &* policy.killRefill
        let debt = max(killDebtUntil, now)
        if policy.killRefill > 0 && debt.since(now) &+ policy.killRefill > burst {
            effects.append(.publish(.killWithheld(id(slot))))
            arm(slot, .hang, at: now + policy.killRefill)
            return
        }
        killDebtUntil = debt + policy.killRefill
        takeBackAhead(slot, &effects)
        repinAll(slot, &effects)
        terminate(slot, .hung, &effects)
        reconcile(&effects)
    }

    // MARK: - Health

    mutating func healthTimer(_ slot: Int, _ effects: inout EffectBuffer) {
        guard workers[slot].phase == .ready, policy.healthInterval > 0 else { return }
        if workers[slot].pinged && workers[slot].outstanding == 0 {
            workers[slot].healthFailures += 1
            if Int(workers[slot].healthFailures) >= max(policy.healthFailures, 1) {
                terminate(slot, .unhealthy, &effects)
                repinAll(slot, &effects)
                reconcile(&effects)
                return
            }
        }
        // A busy worker is judged by its call's budget, unless it has not even begun it: then others may have it.
        if workers[slot].outstanding == 0 {
            workers[slot].pinged = true
            effects.append(.ping(id(slot)))
            arm(slot, .health, at: now + policy.healthTimeout)
        } else {
            workers[slot].pinged = false
            if now.since(workers[slot].mark) >= policy.healthTimeout { takeBack(slot, from: workers[slot].first, &effects) }
            arm(slot, .health, at: now + policy.healthInterval)
        }
    }

    mutating func ponged(_ worker: WorkerID) {
        guard let slot = live(worker), workers[slot].pinged else { return }
        workers[slot].pinged = false
        workers[slot].healthFailures = 0
        if workers[slot].phase == .ready && policy.healthInterval > 0 { arm(slot, .health, at: now + policy.healthInterval) }
    }

    mutating func publishHealth(_ effects: inout EffectBuffer) {
        let current: PoolHealth
        if isStopped {
            current = .stopped
        } else if draining {
            current = .draining
        } else if readyCount == 0 && failedStarts >= max(policy.unavailableAfter, 1) {
            current = .unavailable
        } else if readyCount >= wanted {
            current = .ready
            wasReady = true
        } else {
            current = wasReady ? .degraded : .starting
        }
        guard current != health else { return }
        health = current
        effects.append(.publish(.poolHealth(current)))
    }
}
