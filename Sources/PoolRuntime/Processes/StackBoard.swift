import PoolCore
import PoolProtocol

/// Stacks that workers were asked for, and signals that wait for a stack.
struct StackBoard {
    /// Errors of calls that may be held back for their stack.
    static let maximumHeld = 256
    /// Operators' requests at once, and workers of all of them.
    static let maximumBatches = 64
    static let maximumAsked = 1024
    static let maximumEnds = 4096
    /// Of one worker's stack file that is read.
    static let maximumText = 64 << 10
    /// Of one answer to an operator.
    static let maximumAnswer = 16 << 20
    /// After asking: when it is looked whether the worker has written, ns. A held error waits for the first three only.
    static let looks: [UInt64] = [1_000_000, 5_000_000, 20_000_000, 100_000_000]
    static let looksOfHeld = 3
    /// Between the signal for a stack and the one that ends the worker, ns; the dump takes about 2 ms.
    static let endDelay: UInt64 = 20_000_000
    /// For a worker that closed its socket, most often because it is ending by itself: before it is asked for its stack, ns.
    static let closedDelay: UInt64 = 20_000_000
    /// For a worker that said that it cannot serve: it ends by itself, ns.
    static let setupFailedDelay: UInt64 = 500_000_000

    enum Purpose {
        /// The detail of a `timeout_running` error.
        case overrun(HeldError)
        /// A line of an operator's answer.
        case batch(Int, pid: Int32, runningMethod: String)
    }

    struct Request {
        var pool: Int
        var worker: WorkerID
        /// Of the page's words 4 and 5.
        var number: UInt64
        var askedAt: UInt64
        var looksDone = 0
        var purpose: Purpose

        var lastLook: Int {
            switch purpose {
            case .overrun: return StackBoard.looksOfHeld
            case .batch: return StackBoard.looks.count
            }
        }
        var nextLook: UInt64 { askedAt + StackBoard.looks[min(looksDone, lastLook - 1)] }
    }

    /// An error that waits. `connection` -1: its caller has gone, or the machine has not ended the call yet.
    struct HeldError {
        var call: CallID
        var connection = -1
        var generation: UInt32 = 0
        var clientID: UInt64 = 0
    }

    /// One operator's `stack`, answered when every worker has.
    struct Batch {
        var number: Int
        var connection: Int
        var generation: UInt32
        var id: UInt64
        var waiting = 0
        var bytes = 0
        var answer = Poold_V1_Stacks()
    }

    /// A signal that ends a worker, once its stack is written.
    struct End {
        var pool: Int
        var worker: WorkerID
        var signal: Int32
        var isForGroup: Bool
        /// First the signal for the stack, then, `endDelay` later, this one.
        var asksForStack = false
        var at: UInt64
    }

    var requests: [Request] = []
    var batches: [Batch] = []
    var ends: [End] = []
    private(set) var nextBatch = 1
    /// When to look next; `.max`: nothing waits.
    private(set) var deadline = UInt64.max

    mutating func takeBatchNumber() -> Int {
        nextBatch += 1
        return nextBatch - 1
    }

    /// After every change of the lists.
    mutating func rearm() {
        var next = UInt64.max
        for request in requests { next = min(next, request.nextLook) }
        for end in ends { next = min(next, end.at) }
        deadline = next
    }

    var heldCount: Int {
        var count = 0
        for request in requests { if case .overrun = request.purpose { count += 1 } }
        return count
    }
}
