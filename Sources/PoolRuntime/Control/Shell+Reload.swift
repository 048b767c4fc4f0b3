import Logging
import PoolConfig
import PoolCore
import PoolProtocol
import PoolWire
import SwiftProtobuf

/// Who asked for a reload.
struct ReloadRequest {
    /// A control connection that waits for the result; -1: SIGHUP.
    var connection = -1
    var generation: UInt32 = 0
    var id: UInt64 = 0
    /// Only say what would be done.
    var isDryRun = false
}

/// Another configuration while poold runs: all of it, or none if anything in it is wrong.
extension Shell {
    /// Reloads that may wait for the one at hand.
    static let maximumReloads = 16
    private static let stopping = "poold is stopping"

    /// OPERATION_RELOAD; answered when the file has been read.
    mutating func reload(_ index: Int, _ header: Header, _ body: [UInt8]) throws {
        let request = try Poold_V1_ReloadRequest(serializedBytes: body)
        requestReload(ReloadRequest(connection: index, generation: connections[index].generation, id: header.id, isDryRun: request.dryRun))
    }

    mutating func requestReload(_ request: ReloadRequest?) {
        let request = request ?? ReloadRequest()
        guard !isStopping else { return refuseReload(request, Self.stopping) }
        guard reloads.count < Self.maximumReloads else { return refuseReload(request, "\(Self.maximumReloads) reloads wait already; try again later") }
        reloads.append(request)
        if reloads.count == 1 { startReload() }
    }

    private mutating func startReload() {
        while !reloads.isEmpty {
            if reloader.start() {
                if !reloads[0].isDryRun { serviceReloads() }
                return
            }
            refuseReload(reloads.removeFirst(), "no thread could be made to read the configuration; try again later")
        }
    }

    private mutating func refuseReload(_ request: ReloadRequest, _ reason: String) {
        if request.isDryRun {
            log.info("configuration is not compared", metadata: ["reason": "\(reason)"])
        } else {
            journal.error("configuration is not reloaded", metadata: ["reason": "\(reason)"])
            // systemd waits for an answer to its SIGHUP also where there is nothing to do.
            if request.connection < 0 && !isStopping && !reloads.contains(where: { !$0.isDryRun }) {
                serviceReloads()
                serviceReloaded()
            }
        }
        var result = Poold_V1_ReloadResult()
        result.errors = [reason]
        answer(request, result)
    }

    /// The file has been read.
    mutating func takeReload() {
        guard let read = reloader.take(), !reloads.isEmpty else { return }
        let request = reloads.removeFirst()
        // A pool that began now would not be told to stop.
        guard !isStopping else {
            refuseReload(request, Self.stopping)
            while !reloads.isEmpty { refuseReload(reloads.removeFirst(), Self.stopping) }
            return
        }
        var result = Poold_V1_ReloadResult()
        readFingerprints = read.fingerprints
        defer { readFingerprints = [:] }
        switch read.result {
        case .refused(let problems):
            result.errors = problems.map { "\($0)" }
        case .loaded(let read):
            if let reason = reasonAgainst(read.configuration) {
                result.errors = [reason]
            } else {
                let changes = changes(to: read)
                result.changes = changes.map(Self.message)
                if !request.isDryRun { take(read, changes) }
            }
        }
        if !request.isDryRun {
            for problem in result.errors { journal.error("configuration is not reloaded", metadata: ["problem": "\(problem)"]) }
            serviceReloaded()
        }
        answer(request, result)
        if !reloads.isEmpty { startReload() }
    }

    private mutating func answer(_ request: ReloadRequest, _ result: Poold_V1_ReloadResult) {
        let index = request.connection
        guard index >= 0, connections[index].role == .control, connections[index].generation == request.generation else { return }
        guard let bytes: [UInt8] = try? result.serializedBytes() else { return }
        bytes.withUnsafeBytes { appendFrame(index, Header(.control, code: UInt16(Poold_V1_Operation.reload.rawValue), id: request.id), $0) }
    }

    private static func message(_ change: ConfigurationChange) -> Poold_V1_ConfigurationChange {
        var message = Poold_V1_ConfigurationChange()
        message.key = change.key
        message.old = change.old
        message.new = change.new
        message.effect = "\(change.effect)"
        return message
    }

    // MARK: - What changes

    /// What is right in itself but has no place in this process.
    private func reasonAgainst(_ configuration: Configuration) -> String? {
        if service.canary.pool >= 0 && configuration.pools.contains(where: { $0.name == CanaryPool.name }) {
            return "the pool name \(CanaryPool.name) is poold's own while it has a canary; rename the pool"
        }
        let free = freePlaces
        var added = 0
        for wanted in configuration.pools where pool(named: wanted.name) == nil { added += 1 }
        return added > free ? "\(added) pools are added, and there is room for \(free); pools that were removed free theirs once their calls have ended" : nil
    }

    /// What differs from what runs, with the modules whose files have changed.
    private func changes(to read: LoadedConfiguration) -> [ConfigurationChange] {
        var changes = ConfigurationDifference.changes(from: loaded, to: read)
        for wanted in read.configuration.pools {
            guard let pool = pool(named: wanted.name), pools[pool].configuration.module == wanted.module, hasChangedOnDisk(pool) else { continue }
            changes.append(ConfigurationChange(key: "pools.\(wanted.name).module", old: wanted.module, new: "changed on disk", effect: .recycle))
        }
        return changes
    }

    private func hasChangedOnDisk(_ pool: Int) -> Bool {
        let now = fingerprint(of: pools[pool].configuration.module)
        return now.isKnown && now != pools[pool].fingerprint
    }

    /// As the thread that read the configuration saw it; without a reload it is looked at now.
    func fingerprint(of module: String) -> ModuleFingerprint { readFingerprints[module] ?? ModuleFingerprint(module: module) }

    // MARK: - Doing it

    private mutating func take(_ read: LoadedConfiguration, _ changes: [ConfigurationChange]) {
        let old = configuration
        var new = read.configuration
        // What needs a restart stays as it is.
        new.socketPath = old.socketPath
        new.socketMode = old.socketMode
        new.controlPath = old.controlPath
        new.canary = old.canary
        new.maximumConnections = old.maximumConnections
        // Workers and callers were told it when they came, and go by it.
        new.largestBody = old.largestBody
        new.pools += old.pools.filter(\.isReserved)
        configuration = new
        loaded = Self.kept(loaded, over: read)
        clientLimit = Self.clientLimit(new, descriptors: descriptorLimit)
        access.configure(new)
        service.applyLog?(new.log)
        if new.log.workerLinesPerSecond != old.log.workerLinesPerSecond { limitOutput(new.log.workerLinesPerSecond) }
        for pool in 0..<poolCount where !pools[pool].isRemoved {
            if !new.pools.contains(where: { $0.name == pools[pool].configuration.name }) { removePool(pool) }
        }
        for wanted in new.pools {
            if let pool = pool(named: wanted.name) { update(pool, to: wanted) } else { addPool(wanted) }
        }
        forgetAccess()
        // Last: what begins now begins with the new configuration.
        host.allow(startingAtOnce: new.startingAtOnce, now: Instant(nanoseconds: now), into: &hostEffects)
        spawnGranted()
        report(changes)
    }

    /// What is in force from now on: what needs a restart has its old value, is shown so, and is told again by the next reload.
    private static func kept(_ old: LoadedConfiguration, over read: LoadedConfiguration) -> LoadedConfiguration {
        let before = Dictionary(old.values.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
        var kept = read
        for (index, value) in read.values.enumerated() where ConfigurationDifference.effect(of: value.key) == .restart {
            if let was = before[value.key] { kept.values[index] = was }
        }
        return kept
    }

    /// Of those that run: one that floods now is meant first of all.
    private mutating func limitOutput(_ linesPerSecond: Int) {
        for pool in 0..<poolCount {
            for stream in pools[pool].template.output.indices { pools[pool].template.output[stream].limit(linesPerSecond: linesPerSecond) }
            for slot in 0..<pools[pool].workerCapacity {
                let entry = pools[pool].workers + slot
                for stream in entry.pointee.output.indices { entry.pointee.output[stream].limit(linesPerSecond: linesPerSecond) }
            }
        }
    }

    private mutating func update(_ pool: Int, to wanted: PoolConfiguration) {
        let old = pools[pool].configuration
        let startsAnew = wanted.needsNewWorkers(after: old) || hasChangedOnDisk(pool)
        guard wanted != old || startsAnew else { return }
        changePool(pool, to: wanted, startsAnew: startsAnew)
    }

    private mutating func report(_ changes: [ConfigurationChange]) {
        for change in changes where change.effect == .restart {
            journal.warning(
                "a changed key takes effect when poold is started again",
                metadata: ["key": "\(change.key)", "old": "\(change.old)", "new": "\(change.new)"])
        }
        journal.notice(
            "configuration reloaded",
            metadata: ["changes": "\(changes.count)", "file": "\(configuration.file ?? "none")"])
    }
}
