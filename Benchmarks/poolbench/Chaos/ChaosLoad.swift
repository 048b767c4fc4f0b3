import CPoold
import Glibc
import PoolWire

/// One call that has not ended.
struct OpenCall {
    var connection: Int32
    var pool: ChaosPool
    var work: UInt8
    /// Bytes of the payload, and where its content begins in the random pool.
    var length: Int32
    var content: Int32
    /// In the journal; nil: not noted.
    var journal: UInt32?
    var session: UInt64
    var budget: UInt64
    var issued: UInt64
    var wasCancelled = false
}

struct ChaosConnection {
    var descriptor: Int32 = -1
    var isReady = false
    /// PING is on its way: poold has read every call when PONG is here, then the connection is closed.
    var isLeaving = false
    var left: [UInt8] = []
    var unsent: [UInt8] = []
    var sent = 0
    /// Of `ChaosLoad.methodNames`; 0: not known, or withdrawn.
    var numbers: [UInt16] = []
    /// When it may connect again.
    var retryAt: UInt64 = 0
}

/// Makes the calls of a run, 2,000 a second whatever poold does, and holds each to one truthful end. One thread, one epoll.
final class ChaosLoad {
    static let connectionCount = 32
    /// A call has ended by its budget; poold gets this much longer to say so, and more where there was no processor to say it on.
    static let grace: UInt64 = 15_000_000_000
    static let busyGrace: UInt64 = 60_000_000_000
    static let names = ChaosPool.allCases.filter { $0 != .names }.map { $0.name + ".work" } + ["names.first", "names.second"]
    static let contentBytes = 8 << 20

    let socket: String
    let board: ChaosBoard
    let disturbances: Disturbances
    let rate: Double
    let seed: UInt64
    let epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    var connections = Array(repeating: ChaosConnection(), count: ChaosLoad.connectionCount)
    var open: [UInt64: OpenCall] = [:]
    var tally = CallTally()
    var journal: ChaosJournal
    var token: UInt64 = 0
    /// Where the bodies' content comes from.
    let content: UnsafeMutablePointer<UInt8>
    let scratch = UnsafeMutableRawPointer.allocate(byteCount: 1 << 18, alignment: 64)
    var frame: [UInt8] = []
    var nextSweep: UInt64 = 0
    var machine: MachineLoad
    /// What is still to be done wrong.
    var sabotage: Set<Sabotage> = []
    /// When the last fault was over, as far as known here.
    var lastFaultEnd: UInt64 = 0

    init(socket: String, journal: String, poold: Int32, board: ChaosBoard, disturbances: Disturbances, rate: Double, seed: UInt64) {
        self.socket = socket
        self.board = board
        self.disturbances = disturbances
        self.rate = rate
        self.seed = seed
        self.journal = ChaosJournal(path: journal)
        machine = MachineLoad(poold: poold)
        content = .allocate(capacity: Self.contentBytes)
        var random = ChaosRandom(seed: seed)
        content.withMemoryRebound(to: UInt64.self, capacity: Self.contentBytes / 8) { words in
            for at in 0..<(Self.contentBytes / 8) { words[at] = random.next() }
        }
    }

    deinit {
        for connection in connections where connection.descriptor >= 0 { close(connection.descriptor) }
        close(epoll)
        content.deallocate()
        scratch.deallocate()
    }

    /// Makes the load for so long; calls that are open at the end stay open. False: the operator's thread hangs, or too much is wrong.
    func run(seconds: Double) -> Bool {
        let start = cpoold_now()
        let end = start + UInt64(seconds * 1e9)
        let first = token
        while true {
            let now = cpoold_now()
            guard now < end else { return true }
            var due = first + UInt64(Double(now - start) * rate / 1e9)
            // After a pause of this program itself the missed calls are made, but not all in one breath.
            if due > token + 2_000 {
                tally.late += due - token - 2_000
                due = token + 2_000
            }
            while token < due { issueNext(start + UInt64(Double(token - first) * 1e9 / rate)) }
            takeRequests()
            guard sweep(now) else { return false }
            let next = start + UInt64(Double(token + 1 - first) * 1e9 / rate)
            poll(Int64(min(next > now ? next - now : 0, 50_000_000)))
        }
    }

    /// Waits until every call has ended.
    func settle(seconds: Double) {
        let end = cpoold_now() + UInt64(seconds * 1e9)
        while !open.isEmpty && cpoold_now() < end {
            guard sweep(cpoold_now()) else { return }
            poll(20_000_000)
        }
    }

    /// Reads what comes without making calls.
    func idle(seconds: Double) {
        let end = cpoold_now() + UInt64(seconds * 1e9)
        while cpoold_now() < end {
            _ = sweep(cpoold_now())
            poll(20_000_000)
        }
    }

    /// Twice a second: calls that should have ended, connections to make anew, a hanging operator.
    private func sweep(_ now: UInt64) -> Bool {
        guard now >= nextSweep else { return true }
        nextSweep = now + 500_000_000
        machine.note(now)
        for (id, call) in open where call.issued + call.budget + Self.grace < now {
            if call.issued + call.budget + Self.busyGrace >= now && machine.isBusy(since: call.issued + call.budget, now: now) { continue }
            board.violation(
                "lost: call \(id) to \(call.pool) (work \(Character(UnicodeScalar(call.work)))) has not ended \((now - call.issued) / 1_000_000) ms after it was made, with a budget of \(call.budget / 1_000_000) ms"
            )
            open[id] = nil
        }
        for index in connections.indices where connections[index].descriptor < 0 && connections[index].retryAt <= now { connect(index) }
        let (heartbeat, count) = board.with { ($0.heartbeat, $0.violations.count) }
        if heartbeat > 0 && heartbeat + 90_000_000_000 < now {
            board.violation("the control socket has not answered for 90 s")
            return false
        }
        return count < ChaosBoard.maximumViolations
    }
}
