import Glibc
import PoolConfig
import PoolCore

/// The reserved pool whose worker answers before the watchdog is fed.
enum CanaryPool {
    static let name = Configuration.canaryPool
    static let method = "ping"
    /// Where nobody watches and a canary is wished all the same, ns.
    static let defaultPeriod: UInt64 = 30_000_000_000

    /// Whether there is one.
    static func isWanted(_ mode: CanaryMode, watchdogPeriod: UInt64) -> Bool {
        switch mode {
        case .on: true
        case .off: false
        case .auto: watchdogPeriod > 0
        }
    }

    /// `configuration` with the canary behind its own pools. At the start, and for every configuration that is loaded later.
    static func added(to configuration: Configuration, watchdogPeriod: UInt64) throws(StartError) -> Configuration {
        guard isWanted(configuration.canary, watchdogPeriod: watchdogPeriod) else { return configuration }
        guard !configuration.pools.contains(where: { $0.name == name }) else {
            throw StartError(description: "the pool name \(name) is poold's own while it has a canary; rename the pool, or set `canary: off`")
        }
        var configuration = configuration
        configuration.pools.append(pool(beside: configuration.pools.first, period: watchdogPeriod > 0 ? watchdogPeriod : defaultPeriod))
        return configuration
    }

    /// One cold worker in the Python of the first pool. Its policy follows from the period W in which the watchdog wants to be
    /// fed: a probe each W/4 with a budget of W/8; a worker that does not take it is replaced W/16 later; a start takes what
    /// Python takes. So the next probe is answered well before W is over.
    private static func pool(beside first: PoolConfiguration?, period: UInt64) -> PoolConfiguration {
        var policy = PoolPolicy()
        policy.workers = 1
        policy.minimumWorkers = 1
        policy.maximumWorkers = 1
        policy.window = 1
        policy.maximumQueuedCalls = 16
        policy.overrun = .replace
        policy.hangAfter = period / 32
        policy.terminateGrace = period / 32
        policy.drainGrace = period / 16
        policy.killRefill = 0
        policy.startTimeout = max(period / 2, 10_000_000_000)
        policy.backOffBase = period / 64
        policy.backOffMaximum = period / 16
        policy.circuitFailures = 0
        policy.quarantineDeaths = 0
        // The probes are its health check.
        policy.healthInterval = 0
        var pool = PoolConfiguration(
            name: name, module: "poold.canary", python: first?.python ?? "/usr/bin/python3", pythonPath: first?.pythonPath ?? [], usesTemplate: false,
            policy: policy)
        pool.isReserved = true
        pool.callers = []
        return pool
    }
}
