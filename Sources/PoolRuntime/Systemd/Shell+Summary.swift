import PoolConfig
import PoolCore

extension Shell {
    /// One line for an operator.
    func summary() -> String {
        var pools = 0
        var ready = 0
        var wanted = 0
        var queued = 0
        for pool in 0..<poolCount where !self.pools[pool].isRemoved && !self.pools[pool].configuration.isReserved {
            let status = self.pools[pool].machine.status(now: Instant(nanoseconds: now))
            pools += 1
            ready += status.workers.count(where: { $0.phase == .ready })
            wanted += status.wanted
            queued += status.queuedCalls
        }
        return "\(pools) \(pools == 1 ? "pool" : "pools"), \(ready)/\(wanted) workers ready, \(queued) queued"
    }
}
