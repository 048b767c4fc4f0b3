import CPoold
import Glibc
import PoolClient
import PoolProtocol
import SwiftProtobuf

extension ChaosOperator {
    func carryOut(_ fault: PlannedFault) {
        var random = ChaosRandom(seed: fault.seed)
        switch fault.kind {
        case .killWorker: signalWorker(fault.kind, SIGKILL, .kills, &random)
        case .stopWorker: signalWorker(fault.kind, SIGSTOP, .kills, &random)
        case .terminateWorker: signalWorker(fault.kind, SIGTERM, .slows, &random)
        case .killTemplate: killTemplate(&random)
        case .killGuard: killGuard()
        case .recycleOne, .recycleAll, .operatorKill, .warm, .stack: operateOnWorkers(fault.kind, &random)
        case .scale: scale(&random)
        case .drainAndResume: drain(&random)
        case .look: look(&random)
        case .clearQuarantine: clearQuarantine()
        case .reloadLimit, .reloadPool, .reloadRename, .reloadBroken: reload(fault.kind, &random)
        case .garbage, .truncatedFrame, .hugeLength, .byteByByte, .connectFlood, .neverReads, .unknownMethods, .memoryDescriptor, .hangUp, .controlGarbage:
            board.began(fault.kind, effect: 0)
            // What they call is there.
            disturbances.add(.slows, pool: .wild, seconds: fault.kind == .neverReads ? 3 : 0)
            beHostile(fault.kind, &random)
        case .disconnect, .cancelStorm:
            // Interrupted calls cost their workers nothing: nobody may be lost by it.
            disturbances.add(.slows, pool: nil)
            ask(fault)
        case .raise, .systemExit, .hardExit, .segfault, .leak, .flood, .grandchild, .oversleep, .holdLock, .poison:
            disturbances.add(.kills, pool: .wild, seconds: 5)
            ask(fault)
        }
    }

    private func ask(_ fault: PlannedFault) {
        board.began(fault.kind, effect: 1)
        board.with { $0.requests.append(fault) }
    }

    /// A pool that is there, by the last status.
    private func anyPool(_ random: inout ChaosRandom) -> (ChaosPool, Poold_V1_Pool)? {
        guard refreshStatus() else { return nil }
        let pools = status.pools.compactMap { pool in ChaosPool.of(pool.name).map { ($0, pool) } }
        return pools.isEmpty ? nil : pools[random.below(pools.count)]
    }

    // MARK: - Processes

    private func signalWorker(_ kind: FaultKind, _ signal: Int32, _ disturbance: Disturbance, _ random: inout ChaosRandom) {
        guard let (pool, state) = anyPool(&random) else { return board.skipped(kind) }
        let pids = state.workers.map(\.pid).filter { $0 > 1 }
        guard !pids.isEmpty else { return board.skipped(kind) }
        let pid = pids[random.below(pids.count)]
        let seconds = signal == SIGSTOP ? 0.2 + 3 * random.unit() : 0
        disturbances.add(disturbance, pool: pool, seconds: seconds)
        board.began(kind, effect: 0.5)
        kill(pid, signal)
        if signal == SIGSTOP { later(seconds, .continue(pid: pid)) }
    }

    private func killTemplate(_ random: inout ChaosRandom) {
        guard let (pool, state) = anyPool(&random), state.templatePid > 1 else { return board.skipped(.killTemplate) }
        disturbances.add(.slows, pool: pool)
        // Workers whose fork was under way go with it.
        disturbances.add(.kills, pool: pool)
        board.began(.killTemplate, effect: 1)
        kill(state.templatePid, SIGKILL)
    }

    private func killGuard() {
        let census = ProcessCensus(marker: server.marker, poold: server.pid)
        guard let member = census.members.first(where: { $0.name == "poold-guard" && $0.parent == server.pid }) else { return board.skipped(.killGuard) }
        board.began(.killGuard, effect: 0.5)
        kill(member.pid, SIGKILL)
    }

    // MARK: - Operations

    private func operateOnWorkers(_ kind: FaultKind, _ random: inout ChaosRandom) {
        guard let (pool, state) = anyPool(&random), !state.workers.isEmpty else { return board.skipped(kind) }
        let slot = Int32(state.workers[random.below(state.workers.count)].slot)
        let answer: Result<[UInt8], PoolError>
        switch kind {
        case .recycleOne:
            disturbances.add(.slows, pool: pool)
            answer = operate(.recycle, pool: pool, slot: slot)
        case .recycleAll:
            disturbances.add(.slows, pool: pool, seconds: 5)
            answer = operate(.recycle, pool: pool)
        case .operatorKill:
            disturbances.add(.kills, pool: pool)
            answer = operate(.kill, pool: pool, slot: slot)
        case .warm:
            disturbances.add(.slows, pool: pool, seconds: 5)
            answer = operate(.warm, pool: pool)
        case .stack:
            disturbances.add(.slows, pool: pool)
            answer = operate(.stack, pool: pool, slot: random.chance(perMille: 500) ? slot : -1)
        case .killWorker, .stopWorker, .terminateWorker, .killTemplate, .killGuard, .scale, .drainAndResume, .look, .clearQuarantine, .reloadLimit, .reloadPool,
            .reloadRename, .reloadBroken, .garbage, .truncatedFrame, .hugeLength, .byteByByte, .connectFlood, .neverReads, .unknownMethods, .memoryDescriptor,
            .hangUp, .controlGarbage, .disconnect, .cancelStorm, .raise, .systemExit, .hardExit, .segfault, .leak, .flood, .grandchild, .oversleep, .holdLock,
            .poison:
            preconditionFailure("\(kind) is no operation on workers")
        }
        account(kind, answer, allowed: ["bad_arguments", "pool_unavailable", "draining"])
    }

    /// Counts an operation; a refusal that nothing explains is a violation.
    private func account(_ kind: FaultKind, _ answer: Result<[UInt8], PoolError>, allowed: [String] = []) {
        switch answer {
        case .success: board.began(kind, effect: 1)
        case .failure(let error) where Self.isMissing(error): board.skipped(kind)
        case .failure(let error):
            board.began(kind, effect: 1)
            if error.status != "connection" && error.status != "no_such_pool" && !allowed.contains(error.status) {
                board.violation("\(kind.rawValue) was refused: \(error)")
            }
        }
    }

    private func scale(_ random: inout ChaosRandom) {
        guard let (pool, _) = anyPool(&random) else { return board.skipped(.scale) }
        var request = Poold_V1_ScaleRequest()
        request.pool = pool.name
        request.workers = UInt32(1 + random.below(pool.maximumWorkers + 1))
        disturbances.add(.slows, pool: pool, seconds: 5)
        account(.scale, control(.scale, (try? request.serializedBytes()) ?? []), allowed: ["bad_arguments"])
    }

    private func drain(_ random: inout ChaosRandom) {
        guard let (pool, _) = anyPool(&random) else { return board.skipped(.drainAndResume) }
        let seconds = 0.2 + random.unit()
        disturbances.add(.drains, pool: pool, seconds: seconds)
        account(.drainAndResume, operate(.drain, pool: pool))
        later(seconds, .resume(pool))
    }

    private func clearQuarantine() {
        var request = Poold_V1_QuarantineRequest()
        request.pool = ChaosPool.wild.name
        account(.clearQuarantine, control(.clearQuarantine, (try? request.serializedBytes()) ?? []))
    }

    /// Everything that only looks. What this poold does not know yet is left out.
    private func look(_ random: inout ChaosRandom) {
        let operations: [Poold_V1_Operation] = [
            .status, .stats, .events, .calls, .sessions, .postMortem, .quarantine, .configuration, .version,
        ]
        for operation in operations {
            if case .failure(let error) = control(operation), !Self.isMissing(error), error.status != "connection" {
                board.violation("\(operation) was refused: \(error)")
            }
        }
        board.began(.look, effect: 0)
    }

    // MARK: - Reloads

    private func reload(_ kind: FaultKind, _ random: inout ChaosRandom) {
        var changed = configuration
        changed.isBroken = false
        switch kind {
        case .reloadLimit:
            changed.echoQueue = [8_000, 16_000, 32_768][random.below(3)]
            changed.cpuPrefetch = 1 + random.below(16)
            disturbances.add(.slows, pool: .echo)
            disturbances.add(.slows, pool: .cpu)
        case .reloadPool:
            changed.hasExtra.toggle()
            disturbances.add(.reloads, pool: .extra, seconds: 5)
        case .reloadRename:
            changed.method = changed.method == "first" ? "second" : "first"
            disturbances.add(.reloads, pool: .names, seconds: 10)
        default: changed.isBroken = true
        }
        do { try changed.write() } catch { return board.violation("the configuration cannot be written: \(error)") }
        if hasReload == true && kind != .reloadBroken && random.chance(perMille: 400) {
            Glibc.kill(server.pid, SIGHUP)
            configuration = changed
            return board.began(kind, effect: 3)
        }
        let answer = control(.reload, (try? Poold_V1_ReloadRequest().serializedBytes()) ?? [])
        switch answer {
        case .failure(let error) where Self.isMissing(error):
            hasReload = false
            try? configuration.write()
            board.skipped(kind)
        case .failure(let error):
            board.violation("\(kind.rawValue) failed: \(error)")
            try? configuration.write()
        case .success(let bytes):
            hasReload = true
            board.began(kind, effect: 3)
            let result = (try? Poold_V1_ReloadResult(serializedBytes: bytes)) ?? Poold_V1_ReloadResult()
            if kind == .reloadBroken {
                if result.errors.isEmpty { board.violation("a reload of a broken file reported no error") }
                try? configuration.write()
            } else {
                if !result.errors.isEmpty { board.violation("\(kind.rawValue): \(result.errors.joined(separator: "; "))") }
                configuration = changed
            }
        }
    }
}
