import PoolCore

extension ConfigurationKey where Root == PoolConfiguration {
    /// Every key of a pool, in the order of the reference.
    package static let pool: [ConfigurationKey<PoolConfiguration>] = program + size + queue + life + failures + sessions

    private static let program: [ConfigurationKey<PoolConfiguration>] = [
        .module,
        .python,
        .pythonPath,
        .environment,
        .directory,
        .flag("template", \.usesTemplate, "Fork workers from a process that has imported the module; otherwise each starts from nothing.", .recycle),
        .principals("callers", \.callers, "Who may call it, besides roles.operate."),
        .warm,
        .span("warm_timeout", \.warmCommandTimeout, millisecond...hour, "How long one warming command may take.", .recycle),
    ]

    private static let size: [ConfigurationKey<PoolConfiguration>] = [
        .whole("workers", \.policy.workers, 0...448, "Workers."),
        .whole("min_workers", \.policy.minimumWorkers, 0...448, "The least that it may be scaled to."),
        .whole("max_workers", \.policy.maximumWorkers, 0...448, "The most that it may be scaled to. Default: 64, or `workers` if that is more."),
        .whole("surge", \.policy.surge, 1...64, "Extra workers while replacing."),
        .whole("starting_at_once", \.policy.startingAtOnce, 1...448, "Workers that may be starting at the same time."),
        .whole("prefetch.max_calls", \.policy.window, 1...64, "Calls that a worker may hold, running and sent ahead; 1: nothing is sent ahead."),
        .span("prefetch.within", \.policy.aheadSpan, 0...hour, "A call is sent ahead only where it will begin within this, by the measured times."),
    ]

    private static let queue: [ConfigurationKey<PoolConfiguration>] = [
        .whole("queue.max_calls", \.policy.maximumQueuedCalls, 0...1 << 22, "Calls that may wait."),
        .size("queue.max_bytes", \.policy.maximumQueuedBytes, 0...1 << 40, "Bytes of bodies that may wait."),
        .size("queue.max_bytes_per_client", \.policy.maximumQueuedBytesPerIdentity, 0...1 << 40, "The same for one user."),
        .choice(
            "overload.policy", \.policy.overload, [("refuse", .refuse), ("codel", .codel), ("newest_first", .newestFirst)],
            "refuse: what cannot meet its budget; codel: also shed the oldest; newest_first: serve the newest first."),
        .span("overload.target", \.policy.overloadTarget, millisecond...hour, "Wait that codel and newest_first allow."),
        .span("overload.interval", \.policy.overloadInterval, millisecond...hour, "For how long it must be exceeded before they act."),
        .span("budget.default", \.policy.defaultBudget, 1000...year, "For waiting and running of a call that names no budget."),
        .span("budget.max", \.policy.maximumBudget, 1000...year, "The longest budget; a caller's longer one is cut to it."),
        .whole("retry.max_attempts", \.policy.maximumAttempts, 1...100, "Runs of a call marked idempotent whose worker was lost."),
        .choice(
            "overrun.policy", \.policy.overrun, [("cancel", .cancel), ("replace", .replace), ("finish", .finish)],
            "A running call's budget is over: interrupt it; also replace its worker; or let it finish unheard."),
        .span("overrun.hang_after", \.policy.hangAfter, millisecond...year, "A worker that does not return from an interrupted call within this is replaced."),
        .whole("overrun.max_kills", \.policy.killAllowance, 1...65_536, "Kills of hung workers at once."),
        .span("overrun.kill_interval", \.policy.killRefill, 0...24 * hour, "One more is allowed after each of these; 0s: no limit."),
    ]

    private static let life: [ConfigurationKey<PoolConfiguration>] = [
        .span("lifecycle.start_timeout", \.policy.startTimeout, millisecond...year, "Import and set-up of a worker."),
        .span(
            "lifecycle.drain_timeout", \.policy.drainGrace, 0...year,
            "A retiring worker first finishes its calls, within their budgets. Then it is told to end, and gets SIGTERM after this."),
        .span("lifecycle.terminate_timeout", \.policy.terminateGrace, 0...year, "From SIGTERM to SIGKILL."),
        .span("recycle.max_age", \.policy.maximumAge, 0...year, "Replace a worker at this age; 0s: never."),
        .whole("recycle.max_calls", \.policy.maximumCalls, 0...1 << 56, "Replace a worker after so many calls; 0: never."),
        .size("recycle.max_memory", \.policy.maximumPrivateBytes, 0...1 << 44, "Replace a worker whose private memory exceeds this; 0B: never."),
        .span("recycle.measure_interval", \.policy.measureInterval, 10 * millisecond...year, "Between looks at a worker's memory."),
        .percent("recycle.jitter", \.policy.recycleJitterPercent, 0...90, "Part by which each worker's age and calls are varied."),
    ]

    private static let failures: [ConfigurationKey<PoolConfiguration>] = [
        .span("backoff.base", \.policy.backOffBase, millisecond...hour, "Delay of the next start after a failure; it doubles with each."),
        .span("backoff.max", \.policy.backOffMaximum, millisecond...24 * hour, "The longest delay."),
        .span("backoff.reset_after", \.policy.stableAfter, 0...24 * hour, "A worker that lived this long clears the delay."),
        .whole(
            "backoff.unavailable_after", \.policy.unavailableAfter, 1...1_000,
            "Failed starts in a row, with no worker ready, after which calls are refused."),
        .whole("circuit.failures", \.policy.circuitFailures, 0...1_000_000, "Worker deaths in a row that open the circuit breaker; 0: never."),
        .whole("circuit.successes", \.policy.circuitSuccesses, 1...1_000_000, "Results in a row that close it."),
        .span("circuit.open_for", \.policy.circuitOpenFor, millisecond...24 * hour, "How long it refuses calls before it tries one."),
        .whole("quarantine.deaths", \.policy.quarantineDeaths, 0...1_000_000, "Deaths with the same method and body before it is refused; 0: never."),
        .span("quarantine.duration", \.policy.quarantineFor, second...year, "How long it is refused."),
        .span("health.interval", \.policy.healthInterval, 0...year, "Between checks of an idle worker; 0s: none."),
        .span("health.timeout", \.policy.healthTimeout, millisecond...hour, "How long a check may take."),
        .whole("health.failures", \.policy.healthFailures, 1...200, "Failed checks in a row after which a worker is replaced."),
    ]

    private static let sessions: [ConfigurationKey<PoolConfiguration>] = [
        .choice(
            "sessions.affinity", \.policy.affinity, [("none", .none), ("prefer", .prefer), ("require", .require)],
            "Where calls of a session go: any worker, preferably its last one, or only that one."),
        .span(
            "sessions.time_to_live", \.policy.sessionTimeToLive, 0...year,
            "A session unused for so long is forgotten; 0s: never, which affinity require does not allow."),
        .whole("sessions.max_sessions", \.policy.maximumSessions, 0...1 << 20, "Sessions at once."),
        .whole("sessions.max_sessions_per_client", \.policy.maximumSessionsPerIdentity, 0...1 << 20, "The same for one user."),
    ]
}
