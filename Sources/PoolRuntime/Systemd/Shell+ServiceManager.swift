import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore

/// The loop's side of the service manager.
struct ServiceState {
    /// nil until the loop begins, and where no manager started poold.
    var manager: ServiceManager?
    /// Gives the log another form, level and rate.
    var applyLog: (@Sendable (LogConfiguration) -> Void)?
    /// The manager made this socket: it stays when poold goes.
    var callersSocketIsInherited = false
    var controlSocketIsInherited = false

    /// READY=1 was sent.
    var isReady = false
    /// When the next word is due, ns; `.max`: never.
    var nextAt = UInt64.max
    /// When readiness and status are looked at again.
    var reportAt = UInt64.max
    var extendedAt: UInt64 = 0
    /// What systemd shows now.
    var status = ""
    var canary = CanaryClient()
}

extension Shell {
    /// While starting, readiness is looked at so often; then the status line.
    private static let startingInterval: UInt64 = 50_000_000
    private static let statusInterval: UInt64 = 1_000_000_000
    /// More time is asked for so often, and so much of it.
    private static let extendInterval: UInt64 = 5_000_000_000
    private static let extendSpan: UInt64 = 15_000_000_000
    private static let maximumStatus = 500

    mutating func startService() {
        guard let manager = service.manager else { return }
        startCanary(period: manager.watchdogPeriod > 0 ? manager.watchdogPeriod : CanaryPool.defaultPeriod)
        if manager.isPresent {
            service.reportAt = now
            service.extendedAt = now
            log.info("a service manager listens", metadata: ["watchdog_milliseconds": "\(manager.watchdogPeriod / 1_000_000)"])
        }
        service.nextAt = min(service.reportAt, service.canary.nextAt)
    }

    /// What is due at `service.nextAt`.
    mutating func serviceTurn() {
        if service.canary.nextAt <= now { canaryTurn() }
        if service.reportAt <= now { report() }
        service.nextAt = min(service.reportAt, service.canary.nextAt)
    }

    private mutating func report() {
        guard let manager = service.manager else { return }
        service.reportAt = now + (service.isReady || isStopping ? Self.statusInterval : Self.startingInterval)
        // Without a canary, or when it stops with the other pools, that the loop turns is all that can be said.
        if manager.watchdogPeriod > 0 && (isStopping || service.canary.pool < 0) {
            manager.feedWatchdog()
            service.reportAt = min(service.reportAt, now + manager.watchdogPeriod / 4)
        }
        if isStopping { return }
        let line = serviceStatus()
        if !service.isReady {
            if isReadyToServe {
                service.isReady = true
                service.status = line
                manager.tell(.ready, status: line)
                log.notice("ready", metadata: ["summary": "\(line)"])
                return
            }
            // Starts end by their own limits; beyond those the manager's limit holds again.
            if now - service.extendedAt >= Self.extendInterval && now - started <= longestStart {
                service.extendedAt = now
                manager.tell(.extendStart(by: Self.extendSpan))
            }
        }
        if line != service.status {
            service.status = line
            manager.tell(status: line)
        }
    }

    /// Templates that hang, in turns, then cold starts that do; two hours at most.
    private var longestStart: UInt64 {
        var longest: UInt64 = 0
        var starts = 0
        for pool in 0..<poolCount {
            longest = max(longest, pools[pool].configuration.policy.startTimeout)
            starts += max(pools[pool].configuration.policy.workers, 1)
        }
        let turns = UInt64((starts + configuration.startingAtOnce - 1) / configuration.startingAtOnce)
        return 2 * min(min(longest, 3_600_000_000_000) * turns, 3_600_000_000_000)
    }

    /// Callers are let in, and every pool has `minimumWorkers` ready (at least one, at most those it wants), or has failed to
    /// start, which the status says. Where the watchdog watches, the canary must have answered.
    private var isReadyToServe: Bool {
        guard isListening else { return false }
        if service.canary.pool >= 0 && !service.canary.hasAnswered && (service.manager?.watchdogPeriod ?? 0) > 0 { return false }
        for pool in 0..<poolCount where !pools[pool].isRemoved && !pools[pool].configuration.isReserved && pools[pool].failure.isEmpty {
            let status = pools[pool].machine.status(now: Instant(nanoseconds: now))
            let needed = min(max(pools[pool].machine.policy.minimumWorkers, 1), status.wanted)
            if status.workers.count(where: { $0.phase == .ready }) < needed { return false }
        }
        return true
    }

    /// The summary, and what is wrong.
    private mutating func serviceStatus() -> String {
        var line = summary()
        if service.canary.pool >= 0 {
            let failure = pools[service.canary.pool].failure
            if !failure.isEmpty {
                line += "; the canary cannot start: \(Self.lastLine(failure))"
            } else if service.canary.failures > 0 {
                line += "; the canary does not answer"
            }
        }
        for pool in 0..<poolCount where !pools[pool].isRemoved && !pools[pool].configuration.isReserved && line.utf8.count < Self.maximumStatus {
            let name = pools[pool].configuration.name
            let status = pools[pool].machine.status(now: Instant(nanoseconds: now))
            let stuck = status.workers.count(where: \.isStuck)
            if !pools[pool].failure.isEmpty {
                line += "; \(name) cannot start: \(Self.lastLine(pools[pool].failure))"
            } else if stuck > 0 {
                line += "; \(name) has \(stuck) stuck workers"
            } else if status.circuit != .closed {
                line += "; \(name) has its circuit breaker \(status.circuit)"
            }
        }
        return line.utf8.count <= Self.maximumStatus ? line : String(line.prefix(Self.maximumStatus / 4 * 3)) + "…"
    }

    /// Of a traceback, what went wrong.
    private static func lastLine(_ text: String) -> String {
        String((text.split(whereSeparator: \.isNewline).last ?? "").prefix(120))
    }

    // MARK: - Changes of state

    /// Before a new configuration is applied … Not the turn's time: systemd ignores what is older than its own signal.
    func serviceReloads() { service.manager?.tell(.reloading(at: cpoold_now())) }

    /// … and after it holds, or was refused.
    func serviceReloaded() {
        guard service.isReady else { return }
        service.manager?.tell(.ready)
    }

    mutating func serviceStops() {
        service.manager?.tell(.stopping, status: "stopping: calls in flight are finished")
        if service.manager?.isPresent == true {
            service.reportAt = now
            service.nextAt = now
        }
    }
}
