import PoolCore

/// What no key can say alone.
extension ConfigurationLoader {
    private static let longestSocketPath = 107

    mutating func check(_ file: String?) {
        let whole = Place(file: file ?? "default")
        func place(_ keys: String...) -> Place { keys.lazy.compactMap { [origins] in origins[$0] }.first ?? whole }
        for (key, path) in [("daemon.socket", configuration.socketPath), ("daemon.control_socket", configuration.controlPath)]
        where path.utf8.count > Self.longestSocketPath {
            // A control socket that nobody named is as long as the callers' makes it.
            context.problems.add(
                place(key, "daemon.socket"), key, found: "a path of \(path.utf8.count) bytes",
                allowed: "\(Self.longestSocketPath), as the kernel limits a socket's",
                hint: "choose a shorter one")
        }
        if configuration.socketPath == configuration.controlPath {
            context.problems.add(
                place("daemon.control_socket", "daemon.socket"), "daemon.control_socket", found: "the callers' socket", allowed: "another path")
        }
        if configuration.unreadBytesPerConnection > configuration.unreadBytesToClose {
            context.problems.add(
                place("limits.max_unread_to_close", "limits.max_unread_per_connection"), "limits.max_unread_to_close",
                found: SizeText.text(UInt64(configuration.unreadBytesToClose)),
                allowed: "at least limits.max_unread_per_connection, \(SizeText.text(UInt64(configuration.unreadBytesPerConnection)))")
        }
        var missingPython = false
        for draft in drafts {
            check(draft)
            missingPython = missingPython || draft.origins["python"] == nil
        }
        if missingPython && Paths.program(PoolDraft.defaultPython) == nil {
            context.problems.add(whole, "python", found: "no python3 on PATH", hint: "install python3 or name one with `python` or --python")
        }
    }

    private mutating func check(_ draft: PoolDraft) {
        let policy = draft.pool.policy
        let prefix = "pools.\(draft.pool.name)."
        func place(_ keys: String...) -> Place { keys.lazy.compactMap { draft.origins[$0] }.first ?? draft.place }
        if draft.origins["module"] == nil && draft.pool.module.isEmpty {
            context.problems.add(draft.place, prefix + "module", found: "no module", allowed: "a dotted Python module or a path to a .py file")
        }
        if policy.workers < policy.minimumWorkers {
            context.problems.add(
                place("workers", "min_workers"), prefix + "workers", found: "\(policy.workers)", allowed: "at least min_workers, \(policy.minimumWorkers)")
        }
        if policy.workers > policy.maximumWorkers {
            context.problems.add(
                place("workers", "max_workers"), prefix + "workers", found: "\(policy.workers)", allowed: "at most max_workers, \(policy.maximumWorkers)")
        }
        if policy.minimumWorkers > policy.maximumWorkers {
            context.problems.add(
                place("min_workers", "max_workers"), prefix + "min_workers", found: "\(policy.minimumWorkers)",
                allowed: "at most max_workers, \(policy.maximumWorkers)")
        }
        if policy.defaultBudget > policy.maximumBudget {
            context.problems.add(
                place("budget.default", "budget.max"), prefix + "budget.default", found: SpanText.text(policy.defaultBudget),
                allowed: "at most budget.max, \(SpanText.text(policy.maximumBudget))")
        }
        if policy.backOffBase > policy.backOffMaximum {
            context.problems.add(
                place("backoff.base", "backoff.max"), prefix + "backoff.base", found: SpanText.text(policy.backOffBase),
                allowed: "at most backoff.max, \(SpanText.text(policy.backOffMaximum))")
        }
        if policy.affinity == .require && policy.sessionTimeToLive == 0 {
            context.problems.add(
                place("sessions.time_to_live", "sessions.affinity"), prefix + "sessions.time_to_live", found: "0s, never, with sessions.affinity require",
                allowed: "more than 0s with it", hint: "sessions whose callers are gone would fill max_sessions for ever")
        }
    }
}
