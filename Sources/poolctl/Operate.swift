import ArgumentParser
import PoolClient
import PoolProtocol
import SwiftProtobuf

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show pools, workers, queues and counters.", discussion: "EXAMPLE\n  poolctl status --json")
    @OptionGroup var common: Common

    func run() throws {
        let status = try Poold_V1_Status(serializedBytes: try common.operate(.status))
        if common.json {
            print(try status.jsonString())
            return
        }
        print("poold \(status.version.version), pid \(status.version.pid), up \(Self.span(status.uptimeNanoseconds)), \(status.connections) connections")
        for pool in status.pools { Self.show(pool) }
    }

    static func show(_ pool: Poold_V1_Pool) {
        let ready = pool.workers.filter { $0.phase == "ready" }.count
        print("\npool \(pool.name)  \(pool.health)  \(ready)/\(pool.wanted) workers ready  template \(pool.template)")
        if pool.circuit != "closed" { print("  circuit breaker: \(pool.circuit)") }
        print(
            "  queued \(pool.queuedCalls) calls, \(pool.queuedBytes) bytes; at workers \(pool.outstanding); predicted wait \(milliseconds(pool.predictedWaitNanoseconds)) ms"
        )
        let counters = pool.counters
        print(
            "  results \(counters.results), errors \(counters.errors), refused \(counters.refused), timeouts \(counters.timeouts), cancelled \(counters.cancelled)"
        )
        print(
            "  worker lost \(counters.workerLost), retried \(counters.retried), spawned \(counters.spawned), deaths \(counters.deaths), recycled \(counters.recycled)"
        )
        if pool.quarantined > 0 { print("  quarantined: \(pool.quarantined)") }
        if !pool.workers.isEmpty { print("  SLOT  PHASE        PID      HOLDS  CALLS        FOR") }
        for worker in pool.workers {
            print(
                "  \(pad("\(worker.slot).\(worker.generation)", 6))\(pad(worker.phase, 13))\(pad("\(worker.pid)", 9))\(pad("\(worker.outstanding)", 7))\(pad("\(worker.calls)", 13))\(span(worker.ageNanoseconds))"
            )
        }
        if !pool.failure.isEmpty {
            print("  cannot start a worker:")
            for line in pool.failure.split(separator: "\n") { print("    \(line)") }
        }
    }

    static func pad(_ text: String, _ width: Int) -> String { text.count >= width ? text + " " : text + String(repeating: " ", count: width - text.count) }
    static func milliseconds(_ nanoseconds: UInt64) -> String { "\(nanoseconds / 1_000_000).\(nanoseconds / 100_000 % 10)" }

    static func span(_ nanoseconds: UInt64) -> String {
        let whole = nanoseconds / 1_000_000_000
        if whole < 60 { return "\(whole)s" }
        if whole < 3600 { return "\(whole / 60)m\(whole % 60)s" }
        return "\(whole / 3600)h\(whole % 3600 / 60)m"
    }
}

struct Methods: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List what can be called.", discussion: "EXAMPLE\n  poolctl methods")
    @OptionGroup var common: Common

    func run() throws {
        let connection = try common.connect()
        let methods = connection.methods.sorted { $0.key < $1.key }
        if common.json {
            print("[" + methods.map { "{\"method\": \(quoted($0.key)), \"codec\": \(quoted("\($0.value)"))}" }.joined(separator: ", ") + "]")
        } else {
            for (name, codec) in methods { print("\(StatusCommand.pad(name, 40))\(codec)") }
        }
    }
}

struct Ping: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Measure a round trip to poold itself.", discussion: "EXAMPLE\n  poolctl ping")
    @OptionGroup var common: Common

    func run() throws {
        let connection = try common.connect()
        do {
            let span = try connection.ping()
            print(common.json ? "{\"round_trip_seconds\": \(Double(span) / 1e9)}" : "poold answers in \(span / 1000) µs")
        } catch { throw common.failed(error) }
    }
}

struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "version", abstract: "Show poold's version.", discussion: "EXAMPLE\n  poolctl version")
    @OptionGroup var common: Common

    func run() throws {
        let version = try Poold_V1_Version(serializedBytes: try common.operate(.version))
        print(common.json ? try version.jsonString() : "poold \(version.version), protocol \(version.protocol), pid \(version.pid)")
    }
}

struct Scale: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Change how many workers a pool has.", discussion: "EXAMPLE\n  poolctl scale text 4")
    @OptionGroup var common: Common
    @Argument(help: "The pool.") var pool: String
    @Argument(help: "Wanted workers.") var workers: UInt32

    func run() throws {
        var request = Poold_V1_ScaleRequest()
        request.pool = pool
        request.workers = workers
        try show(common, .scale, try request.serializedBytes())
    }
}

/// Prints what poold says will happen.
func show(_ common: Common, _ operation: Poold_V1_Operation, _ body: [UInt8]) throws {
    let done = try Poold_V1_Done(serializedBytes: try common.operate(operation, body))
    print(common.json ? try done.jsonString() : done.explanation)
}

func show(_ common: Common, _ operation: Poold_V1_Operation, pool: String, slot: Int32 = -1) throws {
    var request = Poold_V1_PoolRequest()
    request.pool = pool
    request.slot = slot
    try show(common, operation, try request.serializedBytes())
}

struct Recycle: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Replace a pool's workers, make before break.", discussion: "EXAMPLE\n  poolctl recycle text")
    @OptionGroup var common: Common
    @Argument(help: "The pool.") var pool: String
    @Argument(help: "Only this slot. Default: all.") var slot: Int32?
    func run() throws { try show(common, .recycle, pool: pool, slot: slot ?? -1) }
}

struct Kill: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Kill one worker now, busy or not.", discussion: "EXAMPLE\n  poolctl kill text 0")
    @OptionGroup var common: Common
    @Argument(help: "The pool.") var pool: String
    @Argument(help: "The slot, see `poolctl status`.") var slot: Int32
    func run() throws { try show(common, .kill, pool: pool, slot: slot) }
}

struct Drain: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Let a pool finish its calls and refuse new ones.", discussion: "EXAMPLE\n  poolctl drain text")
    @OptionGroup var common: Common
    @Argument(help: "The pool.") var pool: String
    func run() throws { try show(common, .drain, pool: pool) }
}

struct Resume: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Undo drain.", discussion: "EXAMPLE\n  poolctl resume text")
    @OptionGroup var common: Common
    @Argument(help: "The pool.") var pool: String
    func run() throws { try show(common, .resume, pool: pool) }
}

struct Quarantine: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Release the calls of a pool that are refused because they killed workers.", discussion: "EXAMPLE\n  poolctl quarantine text")
    @OptionGroup var common: Common
    @Argument(help: "The pool.") var pool: String
    func run() throws { try show(common, .clearQuarantine, pool: pool) }
}
