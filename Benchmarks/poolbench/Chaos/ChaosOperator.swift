import CPoold
import Foundation
import PoolClient
import PoolProtocol
import PoolWire
import SwiftProtobuf

/// What is still to follow a fault.
struct FollowUp {
    enum Action {
        case `continue`(pid: Int32)
        case resume(ChaosPool)
        case hangUp(descriptors: [Int32])
    }
    var at: UInt64
    var action: Action
}

/// Carries out the plan on a thread of its own: kills, operates, reloads, plays the hostile clients, and takes the samples.
final class ChaosOperator: @unchecked Sendable {
    let server: ChaosServer
    let board: ChaosBoard
    let disturbances: Disturbances
    let plan: [PlannedFault]
    var configuration: ChaosConfiguration
    var followUps: [FollowUp] = []
    private var connection: PoolConnection?
    private var samplesFile: FileHandle?
    private var nextSample: UInt64 = 0
    private var nextLook: UInt64 = 0
    /// Nanoseconds between samples.
    private let interval: UInt64
    private var began: UInt64 = 0
    /// Whether poold can reload; nil: not tried yet.
    var hasReload: Bool?
    var status = Poold_V1_Status()
    let finished = DispatchSemaphore(value: 0)

    init(server: ChaosServer, board: ChaosBoard, disturbances: Disturbances, plan: [PlannedFault], seconds: Double) {
        self.server = server
        self.board = board
        self.disturbances = disturbances
        self.plan = plan
        interval = UInt64(MemoryTrend.interval(seconds: seconds) * 1e9)
        configuration = server.configuration
        let path = server.folder + "/samples.jsonl"
        FileManager.default.createFile(atPath: path, contents: nil)
        samplesFile = FileHandle(forWritingAtPath: path)
    }

    func start() {
        began = cpoold_now()
        let thread = Thread { [self] in
            run()
            finished.signal()
        }
        thread.name = "chaos-operator"
        thread.start()
    }

    private func run() {
        for fault in plan {
            let due = began + UInt64(fault.seconds * 1e9)
            while cpoold_now() < due {
                if board.with({ $0.isOver }) { return finishFollowUps() }
                turn()
                let now = cpoold_now()
                if now < due { usleep(UInt32(min((due - now) / 1000 + 1, 20_000))) }
            }
            turn()
            carryOut(fault)
        }
        while !board.with({ $0.isOver }) {
            turn()
            usleep(20_000)
        }
        finishFollowUps()
    }

    /// What is due: follow-ups, a look at the pools that a fault is at work in, a sample, the heartbeat.
    private func turn() {
        let now = cpoold_now()
        board.with { $0.heartbeat = now }
        while let at = followUps.firstIndex(where: { $0.at <= now }) { follow(followUps.remove(at: at)) }
        if now >= nextLook && disturbances.isAnyAtWork {
            nextLook = now + 250_000_000
            if refreshStatus() { disturbances.observe(whole: wholePools, askedAt: now) }
        }
        if now >= nextSample {
            nextSample = now + interval
            sample()
        }
    }

    private func finishFollowUps() {
        for followUp in followUps { follow(followUp) }
        followUps = []
    }

    private func follow(_ followUp: FollowUp) {
        switch followUp.action {
        case .continue(let pid): kill(pid, SIGCONT)
        case .resume(let pool): _ = operate(.resume, pool: pool)
        case .hangUp(let descriptors): for descriptor in descriptors { close(descriptor) }
        }
    }

    func later(_ seconds: Double, _ action: FollowUp.Action) {
        let at = cpoold_now() + UInt64(seconds * 1e9)
        followUps.append(FollowUp(at: at, action: action))
        board.with { $0.lastFault = max($0.lastFault, at) }
    }

    // MARK: - The control socket

    /// What poold answered; nil: refused, with the reason in `refusal`.
    func control(_ operation: Poold_V1_Operation, _ body: [UInt8] = []) -> Result<[UInt8], PoolError> {
        do throws(PoolError) {
            if connection == nil { connection = try PoolConnection(path: configuration.control, greets: false) }
            return .success(try connection!.control(UInt16(operation.rawValue), body))
        } catch {
            if error.status == "connection" {
                connection = nil
                board.violation("the control socket failed at \(operation): \(error)")
            }
            return .failure(error)
        }
    }

    /// Whether the operation exists in this poold.
    static func isMissing(_ error: PoolError) -> Bool { error.message.contains("does not exist in poold") }

    @discardableResult func operate(_ operation: Poold_V1_Operation, pool: ChaosPool, slot: Int32 = -1) -> Result<[UInt8], PoolError> {
        var request = Poold_V1_PoolRequest()
        request.pool = pool.name
        request.slot = slot
        return control(operation, (try? request.serializedBytes()) ?? [])
    }

    @discardableResult func refreshStatus() -> Bool {
        guard case .success(let bytes) = control(.status), let message = try? Poold_V1_Status(serializedBytes: bytes) else { return false }
        status = message
        return true
    }

    /// Whose faults are over: all workers, nobody waits. A pool that a reload took away is as whole as it will be.
    private var wholePools: Set<ChaosPool> {
        var pools = Set(status.pools.filter(\.isWhole).filter { $0.queuedCalls == 0 }.compactMap { ChaosPool.of($0.name) })
        if !configuration.hasExtra { pools.insert(.extra) }
        return pools
    }

    // MARK: - Samples

    private func sample() {
        guard refreshStatus() else { return }
        let pid = server.pid
        var sample = ChaosSample()
        sample.seconds = Double(cpoold_now() - began) / 1e9
        sample.residentKiB = LoadGenerator.residentKiB(pid)
        sample.descriptors = ProcessCensus.descriptors(pid)
        sample.connections = Int(status.connections)
        sample.threads = ProcessCensus.threads(pid)
        let census = ProcessCensus(marker: server.marker, poold: pid)
        sample.processes = census.members.count
        sample.zombies = census.zombies
        sample.privateMiB = Int(census.members.filter { $0.pid != pid }.reduce(0) { $0 + cpoold_private_bytes($1.pid) } >> 20)
        let before = cpoold_now()
        if (try? PoolConnection(path: configuration.socket, greets: false).ping()) != nil { sample.pingMicroseconds = (cpoold_now() - before) / 1000 }
        let line =
            "{\"seconds\": \(Report.rounded(sample.seconds)), \"resident_kib\": \(sample.residentKiB), \"descriptors\": \(sample.descriptors), \"connections\": \(sample.connections), \"processes\": \(sample.processes), \"zombies\": \(sample.zombies), \"threads\": \(sample.threads), \"private_mib\": \(sample.privateMiB), \"ping_us\": \(sample.pingMicroseconds)}\n"
        samplesFile?.write(Data(line.utf8))
        board.with { $0.samples.append(sample) }
    }
}

extension Poold_V1_Pool {
    /// It has every worker that it should have, and its template.
    var isWhole: Bool {
        health == "ready" && circuit == "closed" && workers.count == Int(wanted)
            && workers.allSatisfy { $0.phase == "ready" } && (template == "ready" || template == "off")
    }
}
