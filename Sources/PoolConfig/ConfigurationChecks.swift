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
        let areUnreadRefused = ["limits.max_unread_to_close", "limits.max_unread_per_connection"].contains { origins[$0].map(context.isRefused) ?? false }
        if configuration.unreadBytesPerConnection > configuration.unreadBytesToClose && !areUnreadRefused {
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

    /// Values that go together. One that was refused is not there to compare with: what was wrong with it is told already.
    private mutating func check(_ draft: PoolDraft) {
        let policy = draft.pool.policy
        let prefix = "pools.\(draft.pool.name)."
        func isRefused(_ key: String) -> Bool { draft.origins[key].map(context.isRefused) ?? draft.isRefused }
        func compare(_ key: String, _ other: String, _ isRight: Bool, found: String, allowed: String, hint: String = "") {
            guard !isRight, !isRefused(key), !isRefused(other) else { return }
            let place = draft.origins[key] ?? draft.origins[other] ?? draft.place
            context.problems.add(place, prefix + key, found: found, allowed: allowed, hint: hint)
        }
        if draft.pool.name == Configuration.canaryPool && configuration.canary != .off {
            context.problems.add(
                draft.place, "pools", found: "the name \(draft.pool.name)", allowed: "another: it is poold's own while it has a canary",
                hint: "rename the pool, or set daemon.canary to off")
        }
        if draft.origins["module"] == nil && draft.pool.module.isEmpty && !isRefused("module") {
            context.problems.add(draft.place, prefix + "module", found: "no module", allowed: "a dotted Python module or a path to a .py file")
        }
        compare(
            "workers", "min_workers", policy.workers >= policy.minimumWorkers, found: "\(policy.workers)",
            allowed: "at least min_workers, \(policy.minimumWorkers)")
        compare(
            "workers", "max_workers", policy.workers <= policy.maximumWorkers, found: "\(policy.workers)",
            allowed: "at most max_workers, \(policy.maximumWorkers)")
        compare(
            "min_workers", "max_workers", policy.minimumWorkers <= policy.maximumWorkers, found: "\(policy.minimumWorkers)",
            allowed: "at most max_workers, \(policy.maximumWorkers)")
        compare(
            "budget.default", "budget.max", policy.defaultBudget <= policy.maximumBudget, found: SpanText.text(policy.defaultBudget),
            allowed: "at most budget.max, \(SpanText.text(policy.maximumBudget))")
        compare(
            "backoff.base", "backoff.max", policy.backOffBase <= policy.backOffMaximum, found: SpanText.text(policy.backOffBase),
            allowed: "at most backoff.max, \(SpanText.text(policy.backOffMaximum))")
        compare(
            "sessions.time_to_live", "sessions.affinity", policy.affinity != .require || policy.sessionTimeToLive > 0,
            found: "0s, never, with sessions.affinity require", allowed: "more than 0s with it",
            hint: "sessions whose callers are gone would fill max_sessions for ever")
    }
}
