import Glibc
import Logging
import PoolConfig
import PoolCore

/// Pools come, change and go while poold runs.
extension Shell {
    /// The place of a pool that is configured now.
    func pool(named name: String) -> Int? {
        for pool in 0..<poolCount where !pools[pool].isRemoved && pools[pool].configuration.name == name { return pool }
        return nil
    }

    /// Starts a pool; false: there are too many.
    @discardableResult mutating func addPool(_ configuration: PoolConfiguration) -> Bool {
        guard let place = freePlace() else {
            journal.error("pool is not started: there are too many", metadata: ["pool": "\(configuration.name)", "limit": "\(Self.maximumPools)"])
            return false
        }
        if place < poolCount { (pools + place).deinitialize(count: 1) }
        (pools + place).initialize(to: PoolEntry(configuration: configuration, seed: now &+ UInt64(place)))
        pools[place].fingerprint = fingerprint(of: configuration.module)
        poolCount = max(poolCount, place + 1)
        startTemplate(place)
        handle(place, .timer)
        return true
    }

    /// A place that no pool has, or that one has left for good.
    private func freePlace() -> Int? {
        for pool in 0..<poolCount where hasLeft(pool) { return pool }
        return poolCount < Self.maximumPools ? poolCount : nil
    }

    /// Whether nothing of a removed pool is left: no call, no worker, no template.
    private func hasLeft(_ pool: Int) -> Bool {
        pools[pool].isRemoved && pools[pool].isStopped && pools[pool].template.pid == 0 && pools[pool].template.ticket == 0
    }

    /// Pools that can be added now.
    var freePlaces: Int {
        var free = Self.maximumPools - poolCount
        for pool in 0..<poolCount where hasLeft(pool) { free += 1 }
        return free
    }

    /// A pool that is no longer configured: callers lose its methods now, calls that it has are finished within the shutdown limit.
    mutating func removePool(_ pool: Int) {
        pools[pool].isRemoved = true
        withdrawMethods(pool)
        stopTemplate(pool)
        handle(pool, .shutdown(limit: configuration.shutdownLimit))
    }

    /// The same pool with another configuration. `startsAnew`: its workers are replaced, each when its successor is ready.
    mutating func changePool(_ pool: Int, to configuration: PoolConfiguration, startsAnew: Bool) {
        pools[pool].configuration = configuration
        pools[pool].isOpen = configuration.isOpen
        let policy = configuration.policy.clamped
        pools[pool].makeRoom(for: policy)
        feedPolicy(pool, policy)
        if startsAnew { startAnew(pool) }
    }

    private mutating func feedPolicy(_ pool: Int, _ policy: PoolPolicy) {
        precondition(!isCarryingOut, "a policy comes between events")
        isCarryingOut = true
        pools[pool].machine.configure(policy, now: Instant(nanoseconds: now), into: &effects)
        carryOut(pool)
        isCarryingOut = false
        handlePostponed()
    }

    /// Replaces all workers of a pool, and first the template that they are forked from: so that they run the code that is there now.
    mutating func startAnew(_ pool: Int) {
        pools[pool].fingerprint = fingerprint(of: pools[pool].configuration.module)
        replaceTemplate(pool)
        handle(pool, .recycleAll)
    }
}
