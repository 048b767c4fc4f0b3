import Glibc
import PoolConfig
import PoolCore
import PoolWire

/// A method of a pool, by `MethodID`.
struct PoolMethod {
    var name: String
    var codec: Codec
    var flags: UInt8
    /// Its number for clients.
    var number: UInt16
}

/// A worker as the shell sees it: descriptors and its own method numbers.
struct WorkerEntry {
    var generation: UInt32 = 0
    var pid: Int32 = 0
    var pidDescriptor: Int32 = -1
    /// Index of its socket in the slab; -1: closed.
    var connection = -1
    /// Before the process exists.
    var socket: Int32 = -1
    var page: UnsafeMutablePointer<UInt64>?
    var stack: Int32 = -1
    /// What the child gets: socket, page, stack, stdout, stderr; closed once it has them.
    var childDescriptors: [Int32] = []
    var output: [OutputCapture] = []
    /// By `MethodID`; 0: it has no such method.
    var numbers: [UInt16] = []
    /// Parts of the machine's interest: spawn asked and not answered.
    var isStarting = false
    var ticket: UInt64 = 0
}

enum TemplateState {
    case off, starting, ready, failed
}

struct TemplateEntry {
    var state = TemplateState.off
    var pid: Int32 = 0
    var control: Int32 = -1
    var output: [OutputCapture] = []
    var failures = 0
    var restartAt = UInt64.max
    /// When it must be ready, or have answered the oldest order to fork; ns.
    var answerBy = UInt64.max
    var ticket: UInt64 = 0
    /// Workers that wait for it to become ready.
    var waiting: [WorkerID] = []
    /// Workers that it was asked for.
    var asked: [WorkerID] = []
    /// The child's ends of its descriptors, until it has them.
    var childEnds: [Int32] = []
    /// Why it said that it cannot serve.
    var refusal = ""
}

/// One pool: its machine and what the machine does not know.
struct PoolEntry: ~Copyable {
    let configuration: PoolConfiguration
    var machine: PoolMachine
    let workers: UnsafeMutablePointer<WorkerEntry>
    let workerCapacity: Int
    /// By `CallID.index`.
    let contexts: UnsafeMutablePointer<CallContext>
    let contextCapacity: Int
    var methods: [PoolMethod] = []
    var methodByName: [String: UInt16] = [:]
    /// Traceback of the last failed start; empty once a worker is ready.
    var failure = ""
    var template = TemplateEntry()
    /// The machine's next deadline, ns; `.max`: none.
    var deadline = UInt64.max
    var isStopped = false

    init(configuration: PoolConfiguration, seed: UInt64) {
        self.configuration = configuration
        let policy = configuration.policy.clamped
        machine = PoolMachine(policy: policy, seed: seed)
        workerCapacity = policy.maximumWorkers + policy.surge
        workers = UnsafeMutablePointer<WorkerEntry>.allocate(capacity: workerCapacity)
        workers.initialize(repeating: WorkerEntry(), count: workerCapacity)
        contextCapacity = policy.maximumQueuedCalls + workerCapacity * policy.window
        contexts = calloc(contextCapacity, MemoryLayout<CallContext>.stride)!.bindMemory(to: CallContext.self, capacity: contextCapacity)
    }
}

/// What a child process of poold is.
enum Child {
    case worker(pool: Int, WorkerID)
    case template(pool: Int)
}

enum PendingSpawn {
    case worker(pool: Int, WorkerID)
    case template(pool: Int)
}
