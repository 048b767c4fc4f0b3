import CPoold
import PoolWire

extension ChaosLoad {
    /// Does what the plan asks of our own connections, and of workers by calls.
    func takeRequests() {
        let (requests, lastFault) = board.with { tally in
            let requests = tally.requests
            tally.requests.removeAll()
            return (requests, tally.lastFault)
        }
        lastFaultEnd = lastFault
        for fault in requests {
            var random = ChaosRandom(seed: fault.seed)
            switch fault.kind {
            case .disconnect: leave(&random)
            case .cancelStorm: cancelStorm(&random)
            case .poison: for _ in 0..<3 { misbehave(fault.kind, &random) }
            case .raise, .systemExit, .hardExit, .segfault, .leak, .flood, .grandchild, .oversleep, .holdLock: misbehave(fault.kind, &random)
            case .killWorker, .stopWorker, .terminateWorker, .killTemplate, .killGuard, .recycleOne, .recycleAll, .scale, .drainAndResume, .operatorKill, .warm,
                .stack, .look, .clearQuarantine, .reloadLimit, .reloadPool, .reloadRename, .reloadBroken, .garbage, .truncatedFrame, .hugeLength, .byteByByte,
                .connectFlood, .neverReads, .unknownMethods, .memoryDescriptor, .hangUp, .controlGarbage:
                preconditionFailure("\(fault.kind) is the operator's to do")
            }
        }
    }

    private func misbehave(_ kind: FaultKind, _ random: inout ChaosRandom) {
        guard let work = kind.work else { preconditionFailure("\(kind) is no work") }
        issue(.wild, work, random.below(connections.count), cpoold_now(), &random)
    }

    /// A connection goes while its calls run. PING first: when its PONG is here poold has read every call, so the counts stay exact.
    private func leave(_ random: inout ChaosRandom) {
        let index = random.below(connections.count)
        guard connections[index].isReady, !connections[index].isLeaving else { return }
        for pool in [ChaosPool.sleeper, .cpu, .sleeper, .echo, .cold, .session, .sleeper, .cpu] { issue(pool, pool.work, index, cpoold_now(), &random) }
        connections[index].isLeaving = true
        frame.removeAll(keepingCapacity: true)
        frame.appendFrame(Header(.ping, id: 1, time: cpoold_now()))
        write(index)
    }

    /// Calls of every kind, and CANCEL for each at once; some are not there, or named twice.
    private func cancelStorm(_ random: inout ChaosRandom) {
        let pools: [ChaosPool] = [.sleeper, .cpu, .echo, .session, .cold, .numbers]
        for _ in 0..<60 {
            let pool = pools[random.below(pools.count)]
            issue(pool, pool.work, random.below(connections.count), cpoold_now(), &random)
            guard let call = open[token] else { continue }
            open[token]?.wasCancelled = true
            frame.removeAll(keepingCapacity: true)
            for id in [token, token, token &+ 1 << 40] { frame.appendFrame(Header(.cancel, id: id)) }
            write(Int(call.connection))
        }
    }
}
