import Glibc
import PoolConfig
import PoolCore
import PoolWire

/// A method of a pool, by `MethodID`.
struct PoolMethod {
    var name: String
    var codec: Codec
    var flags: UInt8
    /// Its number for clients; 0: they do not know it, because not every serving worker has it yet, or none has it any more.
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
    /// When its process came to be, ns.
    var bornAt: UInt64 = 0
    /// Why it said that it cannot serve.
    var failure = ""
    /// The last stack that it was asked for: word 4 of its page.
    var stackNumber: UInt64 = 0
    /// faulthandler was asked for the stacks, before its end.
    var isDumped = false
    var overrun = OverrunCall()
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
    /// It waits for a place among the templates that are starting.
    var isQueued = false
    /// Workers that wait for it to become ready.
    var waiting: [WorkerID] = []
    /// Workers that it was asked for.
    var asked: [WorkerID] = []
    /// The child's ends of its descriptors, until it has them.
    var childEnds: [Int32] = []
    /// Why it said that it cannot serve.
    var refusal = ""
    /// It is ended because another one, of other code, takes its place at once.
    var isReplaced = false
}

/// One pool: its machine and what the machine does not know.
struct PoolEntry: ~Copyable {
    var configuration: PoolConfiguration
    var machine: PoolMachine
    private(set) var workers: UnsafeMutablePointer<WorkerEntry>
    private(set) var workerCapacity: Int
    /// By `CallID.index`.
    private(set) var contexts: UnsafeMutablePointer<CallContext>
    private(set) var contextCapacity: Int
    var methods: [PoolMethod] = []
    var methodByName: [String: UInt16] = [:]
    /// Traceback of the last failed start; empty once a worker is ready.
    var failure = ""
    var template = TemplateEntry()
    /// Every caller may call it.
    var isOpen: Bool
    /// Its workers do not all have the same methods: a reload is under way.
    var methodsDiffer = false
    /// No longer configured: it refuses calls, and its place is free once it has stopped.
    var isRemoved = false
    var deaths = DeathHistory()
    var isStopped = false
    /// What the module's file was when its workers were last started anew.
    var fingerprint = ModuleFingerprint()

    init(configuration: PoolConfiguration, seed: UInt64) {
        self.configuration = configuration
        isOpen = configuration.isOpen
        let policy = configuration.policy.clamped
        machine = PoolMachine(policy: policy, seed: seed)
        workerCapacity = policy.workerSlots
        workers = UnsafeMutablePointer<WorkerEntry>.allocate(capacity: workerCapacity)
        workers.initialize(repeating: WorkerEntry(), count: workerCapacity)
        contextCapacity = policy.callBound
        contexts = Self.makeContexts(contextCapacity)
    }

    deinit {
        workers.deinitialize(count: workerCapacity)
        workers.deallocate()
        free(contexts)
    }

    /// Zeroed pages that are not touched cost nothing.
    private static func makeContexts(_ count: Int) -> UnsafeMutablePointer<CallContext> {
        calloc(max(1, count), MemoryLayout<CallContext>.stride)!.bindMemory(to: CallContext.self, capacity: count)
    }

    /// Room for what the machine may hold under another policy; never less than before.
    mutating func makeRoom(for policy: PoolPolicy) {
        if policy.workerSlots > workerCapacity {
            let larger = UnsafeMutablePointer<WorkerEntry>.allocate(capacity: policy.workerSlots)
            larger.moveInitialize(from: workers, count: workerCapacity)
            (larger + workerCapacity).initialize(repeating: WorkerEntry(), count: policy.workerSlots - workerCapacity)
            workers.deallocate()
            workers = larger
            workerCapacity = policy.workerSlots
        }
        if policy.callBound > contextCapacity {
            let larger = Self.makeContexts(policy.callBound)
            memcpy(larger, contexts, contextCapacity * MemoryLayout<CallContext>.stride)
            free(contexts)
            contexts = larger
            contextCapacity = policy.callBound
        }
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
