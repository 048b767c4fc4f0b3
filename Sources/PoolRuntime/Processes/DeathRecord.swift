import PoolCore
import PoolProtocol

/// How one worker ended, for `poolctl post-mortem`. Every text is bounded.
struct DeathRecord {
    static let maximumStack = 16 << 10
    static let maximumFailure = 8 << 10

    var worker: WorkerID
    var pid: Int32
    /// Wall clock, ns since 1970.
    var at: UInt64
    var exit: ExitCause
    /// Before it was ready.
    var wasStarting = false
    /// Before the signal that poold was about to send.
    var cameFirst = false
    /// `nil` until the machine has said it, in the same turn.
    var cause: WorkerCause?
    /// `pool.method` that ran; empty: none.
    var method = ""
    /// The call that ran, if it was still wanted.
    var call = CallID.none
    /// Of its method and body; 0: not hashed.
    var hash: UInt64 = 0
    var ran: Nanoseconds = 0
    var bodyBytes = 0
    var calls: UInt64 = 0
    var held = 0
    var lived: Nanoseconds = 0
    var standardError = ""
    var standardOutput = ""
    var stack = ""
    var privateBytes: UInt64 = 0
    var maximumResidentBytes: UInt64 = 0
    var failure = ""

    /// For the log: `status 3`, `signal 9`.
    var exitText: String {
        switch exit {
        case .status(let status): return "status \(status)"
        case .signal(let signal): return "signal \(signal)"
        }
    }

    func message(pool: String) -> Poold_V1_Death {
        var message = Poold_V1_Death()
        message.pool = pool
        message.worker = "\(worker.slot).\(worker.generation)"
        message.pid = pid
        message.at = at
        switch exit {
        case .status(let status): (message.exit, message.code) = ("status", status)
        case .signal(let signal): (message.exit, message.code) = ("signal", signal)
        }
        message.cause = cause.map { "\($0)" } ?? ""
        message.method = method
        message.hash = hash == 0 ? "" : String(hash, radix: 16)
        message.ranNanoseconds = ran
        message.bodyBytes = UInt64(bodyBytes)
        message.calls = calls
        message.held = UInt32(held)
        message.livedNanoseconds = lived
        message.stderrTail = standardError
        message.stdoutTail = standardOutput
        message.stack = stack
        message.privateBytes = privateBytes
        message.maximumResidentBytes = maximumResidentBytes
        message.failure = failure
        return message
    }
}

/// The last deaths of one pool, oldest first.
struct DeathHistory {
    static let capacity = 32
    private(set) var records: [DeathRecord] = []

    mutating func append(_ record: DeathRecord) {
        if records.count == Self.capacity { records.removeFirst() }
        records.append(record)
    }

    /// The machine has said why; returns the whole record. `nil`: there is none, or it was told before.
    mutating func settle(_ worker: WorkerID, _ cause: WorkerCause) -> DeathRecord? {
        guard let at = records.lastIndex(where: { $0.worker == worker && $0.cause == nil }) else { return nil }
        // Its socket closes a moment before it can be seen to be dead: then that is not why it ended.
        let isByItself = cause == .socketClosed && records[at].cameFirst
        records[at].cause = !isByItself ? cause : records[at].exit == .status(0) ? .exited : .crashed
        return records[at]
    }

    /// The machine blames the call that ran.
    mutating func blame(_ call: CallID, _ hash: UInt64) {
        guard let at = records.lastIndex(where: { $0.call == call && $0.cause == nil }) else { return }
        records[at].hash = hash
    }

    func last(blamedOn hash: UInt64) -> DeathRecord? { records.last { $0.hash == hash } }
}

/// A call that a worker still ran when its caller was given up on: the machine has let go of it by the time the worker dies.
struct OverrunCall {
    var number: UInt64 = 0
    var hash: UInt64 = 0
    var bodyBytes = 0
}
