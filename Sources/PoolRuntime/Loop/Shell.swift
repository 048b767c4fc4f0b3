import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

/// What an epoll event belongs to: kind in the top byte, 24 bits of generation, 32 bits of index.
enum TokenKind: UInt64 {
    case listener = 1
    case controlListener, connection, signal, spawnOutcome, output, template, timer, reload, canary

    func token(index: Int, generation: UInt32 = 0) -> UInt64 { rawValue << 56 | UInt64(generation & 0xFF_FFFF) << 32 | UInt64(index) }
}

/// A method as clients know it: its number on every connection is its place here plus 1. Numbers only grow.
struct GlobalMethod: BitwiseCopyable {
    var pool: UInt16
    var method: UInt16
    /// Or never given to callers: a reserved pool's.
    var isWithdrawn: Bool
}

/// The loop: owns the machines, the workers and the connections; nothing else touches them.
///
/// What belongs together stands in one file each: `+Connections` (accept, read, write, close), `+Clients` (frames of callers),
/// `+Effects` (what the machines want done), `+Workers` (frames of workers), `+Methods` (what callers may call, and its numbers),
/// `+Processes` (birth and death), `+Templates`, `+Pools` (pools come, change and go), `+Reload`, `+Access` (who may what), `+Control`.
struct Shell: ~Copyable {
    static let scratchBytes = 256 << 10
    static let eventsPerTurn = 512
    static let maximumMethods = 65_535
    static let maximumControlConnections = 64
    /// Between looks for memory that is not needed any more, ns.
    private static let tidyInterval: UInt64 = 10_000_000_000
    /// Free bytes in the heaps that are not worth giving back.
    private static let keptHeapBytes = 4 << 20
    /// Those of a configuration and poold's own.
    static let maximumPools = Configuration.maximumPools + 1
    /// Workers' sockets beyond those of the first configuration: room for pools that a reload adds or enlarges.
    private static let spareWorkers = 8192
    /// Reads of a dead worker's socket, which holds what a socket buffer holds: a grandchild may go on writing.
    static let maximumLastReads = 64

    var configuration: Configuration
    let log: Logger
    var journal: Journal
    let spawner: SpawnService
    let started: UInt64
    var now: UInt64
    var isOver = false
    var isStopping = false

    let epoll: Int32
    var listener: Int32 = -1
    var controlListener: Int32 = -1
    var isListening = false
    /// Callers are let in when every pool has a worker or has failed once, or at this time.
    var openAt: UInt64
    let signals: Int32
    let timer: Int32
    /// When the timer fires, ns; `.max`: it is not armed.
    var armedAt = UInt64.max
    /// Spent for one accept when no descriptor is left.
    var reserve: Int32
    /// Spent for one operator when no descriptor is left; -1: in use.
    var controlReserve: Int32

    /// RLIMIT_NOFILE, raised as far as it goes.
    let descriptorLimit: Int
    let scratch: UnsafeMutableRawPointer
    var blocks = BlockPool()
    /// When memory that a burst has left behind is looked for, ns; `.max`: nothing has happened since the last time.
    var tidyAt = UInt64.max
    let connections: UnsafeMutablePointer<Connection>
    let connectionCapacity: Int
    var clientLimit: Int
    var clientCount = 0
    var controlCount = 0
    var usedConnections = 0
    var freeConnections: [Int32] = []
    /// Ring of connections with something to write.
    let dirty: UnsafeMutablePointer<Int32>
    let dirtyMask: Int
    var dirtyHead = 0
    var dirtyTail = 0
    var segments = SegmentTable()
    /// Stalled connections that have room again.
    var due: [Int32] = []
    var faultLog = LogAllowance()

    let pools: UnsafeMutablePointer<PoolEntry>
    /// Places at and above this one have never been used; those below hold a pool, or one that was removed.
    var poolCount = 0
    /// When each pool's machine has something to do, ns; `.max`: never. Side by side, for it is looked at in every turn.
    let deadlines: UnsafeMutablePointer<UInt64>
    /// When a template has something to do, at the earliest; 0: to be looked up.
    var templateDeadline: UInt64 = 0
    var hostDeadline = UInt64.max
    var effects = EffectBuffer()
    var isCarryingOut = false
    /// Events that came up while effects were carried out.
    var postponed: [(pool: Int, event: Event)] = []
    var host: HostMachine
    var hostEffects: [HostMachine.Effect] = []
    /// What the host machine grants is being carried out.
    var isGranting = false
    var warming = WarmingTable()

    let globalMethods: UnsafeMutablePointer<GlobalMethod>
    var methodCount = 0
    var methodNumbers: [String: UInt16] = [:]
    /// WELCOME for each class of callers, made when it is first needed.
    var welcomeBodies: [UInt16: [UInt8]] = [:]
    /// Pools whose methods are to be reviewed at the end of the turn.
    var methodReviews: [Int] = []
    var access: AccessTable
    let reloader: Reloader
    /// Waiting for the file to be read; the first is being served.
    var reloads: [ReloadRequest] = []
    /// Of modules, while a reload is carried out.
    var readFingerprints: [String: ModuleFingerprint] = [:]
    /// The configuration as it was read last, with where each value came from.
    var loaded: LoadedConfiguration

    var identities: [UInt32: UInt16] = [:]
    /// Every process that poold made, by pid.
    var children: [Int32: Child] = [:]
    /// Spawn orders on their way, by ticket.
    var orders: [UInt64: PendingSpawn] = [:]
    var nextTicket: UInt64 = 1
    /// Forks that a template has not reported yet: their deaths must not be taken for strangers'.
    var pendingForks = 0
    var guardPipe: Int32
    var guardProcess: Int32
    var guardStarted: UInt64
    /// When a guard that died is replaced; ns.
    var guardDeadline = UInt64.max
    var orphansReaped: UInt64 = 0
    var service = ServiceState()

    // The frame at hand, while its effects are carried out.
    var arrivalConnection = -1
    var arrivalMethod: UInt16 = 0
    var arrivalHeader = Header(.ping)
    var arrivalBody = UnsafeRawBufferPointer(start: nil, count: 0)
    var replyHeader = Header(.ping)
    var replyBody = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Of the arriving call, where the machine wants it.
    var arrivalHash: UInt64 = 0
    /// Steps of lists that were walked for the frames of one read, beyond what a frame costs.
    var extraWork = 0
    /// The call that an operator is cancelling.
    var operatorCancel = CallReference.none
    var stacks = StackBoard()
    /// The block that holds nothing but the large frame at hand; who takes it over empties this.
    var handover = Block()

    init(
        loaded: LoadedConfiguration, reloader: Reloader, log: Logger, spawner: SpawnService, listener: Int32, controlListener: Int32, guardPipe: Int32,
        guardProcess: Int32
    ) {
        let configuration = loaded.configuration
        self.configuration = configuration
        self.loaded = loaded
        self.reloader = reloader
        self.log = log
        journal = Journal(log: log)
        self.spawner = spawner
        self.listener = listener
        self.controlListener = controlListener
        self.guardPipe = guardPipe
        self.guardProcess = guardProcess
        now = cpoold_now()
        started = now
        guardStarted = now
        if guardPipe < 0 { guardDeadline = now }
        openAt = now + configuration.startupLimit
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        signals = cpoold_signalfd()
        timer = cpoold_timer()
        reserve = cpoold_open_null()
        controlReserve = cpoold_open_null()
        scratch = malloc(Self.scratchBytes)!
        let limit = Int(cpoold_raise_descriptor_limit())
        descriptorLimit = limit
        clientLimit = Self.clientLimit(configuration, descriptors: limit)
        connectionCapacity = min(configuration.maximumConnections, limit) + Self.maximumControlConnections + Self.workerSlots(configuration) + Self.spareWorkers
        // Zeroed pages that are not touched cost nothing.
        connections = calloc(connectionCapacity, MemoryLayout<Connection>.stride)!.bindMemory(to: Connection.self, capacity: connectionCapacity)
        var ring = 1
        while ring < connectionCapacity { ring *= 2 }
        dirty = calloc(ring, MemoryLayout<Int32>.stride)!.bindMemory(to: Int32.self, capacity: ring)
        dirtyMask = ring - 1
        globalMethods = calloc(Self.maximumMethods, MemoryLayout<GlobalMethod>.stride)!.bindMemory(to: GlobalMethod.self, capacity: Self.maximumMethods)
        host = HostMachine(startingAtOnce: configuration.startingAtOnce)
        pools = UnsafeMutablePointer<PoolEntry>.allocate(capacity: Self.maximumPools)
        deadlines = UnsafeMutablePointer<UInt64>.allocate(capacity: Self.maximumPools)
        deadlines.initialize(repeating: .max, count: Self.maximumPools)
        access = AccessTable(configuration)
        watch(signals, .signal)
        watch(reloader.outcomeEvent, .reload)
        watch(timer, .timer)
        watch(spawner.outcomeEvent, .spawnOutcome)
        if controlListener >= 0 { watch(controlListener, .controlListener) }
    }

    private static func workerSlots(_ configuration: Configuration) -> Int { configuration.pools.reduce(0) { $0 + $1.policy.clamped.workerSlots } }

    /// Callers must not take the descriptors that workers and operators need.
    static func clientLimit(_ configuration: Configuration, descriptors limit: Int) -> Int {
        max(1, min(configuration.maximumConnections, limit - reservedDescriptors(limit: limit, workers: workerSlots(configuration))))
    }

    /// What is not left to callers: poold's own, six of each worker, the control socket's; at most half of all.
    private static func reservedDescriptors(limit: Int, workers: Int) -> Int { min(limit / 2, 64 + 6 * workers + maximumControlConnections) }

    func watch(_ descriptor: Int32, _ kind: TokenKind, index: Int = 0, generation: UInt32 = 0) {
        _ = cpoold_epoll_control(epoll, EPOLL_CTL_ADD, descriptor, EPOLLIN.rawValue, kind.token(index: index, generation: generation))
    }

    /// A budget begins when its call is read. A turn that was held up, by the scheduler perhaps, began before the call was even sent.
    @inline(__always) mutating func noteTimeOfArrival(_ index: Int) {
        if connections[index].role == .client { now = cpoold_now() }
    }

    /// The loop thread's life.
    mutating func run() {
        for pool in configuration.pools { addPool(pool) }
        startService()
        let events = UnsafeMutablePointer<epoll_event>.allocate(capacity: Self.eventsPerTurn)
        while !isOver {
            armTimer()
            let count = epoll_wait(epoll, events, Int32(Self.eventsPerTurn), due.isEmpty && methodReviews.isEmpty && !warming.isDue ? -1 : 0)
            now = cpoold_now()
            if count > 0 {
                for index in 0..<Int(count) { dispatch(events + index) }
            }
            turn()
        }
        events.deallocate()
        spawner.finish()
    }

    /// Sees to it that the loop wakes for the next deadline. The timer is moved only to an earlier time: nearly always the
    /// deadline at hand is that of a call which is answered long before, and arming costs more than waking once too often.
    private mutating func armTimer() {
        var next = UInt64.max
        for pool in 0..<poolCount { next = min(next, deadlines[pool]) }
        next = min(next, templateDeadline, hostDeadline, guardDeadline)
        if !isListening && listener >= 0 { next = min(next, openAt) }
        next = min(next, stacks.deadline, tidyAt)
        next = min(next, service.nextAt)
        guard next < armedAt else { return }
        armedAt = next
        _ = cpoold_timer_arm(timer, next)
    }

    @inline(__always) private mutating func dispatch(_ event: UnsafePointer<epoll_event>) {
        let token = cpoold_epoll_data(event)
        let index = Int(token & 0xFFFF_FFFF)
        let generation = UInt32(token >> 32 & 0xFF_FFFF)
        switch TokenKind(rawValue: token >> 56) {
        case .connection:
            guard connections[index].role != .free, connections[index].generation & 0xFF_FFFF == generation else { return }
            let mask = event.pointee.events
            if mask & EPOLLOUT.rawValue != 0 { flush(index) }
            guard connections[index].role != .free, connections[index].generation & 0xFF_FFFF == generation else { return }
            if connections[index].paused || connections[index].stall != .no {
                // Not to be read; only its end counts.
                if mask & (EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 { closeConnection(index) }
            } else if mask & (EPOLLIN.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 {
                readable(index)
            }
        case .listener: acceptAll(listener, .client)
        case .controlListener: acceptAll(controlListener, .control)
        case .signal: takeSignals()
        case .timer:
            cpoold_timer_take(timer)
            armedAt = .max
        case .spawnOutcome: takeOutcomes()
        case .output: readOutput(index, generation)
        case .template: readTemplate(index)
        case .reload: takeReload()
        case .canary: readCanary()
        case nil: return
        }
    }

    /// The end of a turn: timers, then one write for each connection that has something to say.
    private mutating func turn() {
        for pool in 0..<poolCount where deadlines[pool] <= now { handle(pool, .timer) }
        if templateDeadline <= now { tendTemplates() }
        if hostDeadline <= now { tellHost(.timer) }
        if guardDeadline <= now { startGuard() }
        if !methodReviews.isEmpty { reviewDueMethods() }
        if stacks.deadline <= now { lookAtStacks() }
        if !isListening && listener >= 0 { openWhenReady() }
        if warming.isDue { continueWarming() }
        if service.nextAt <= now { serviceTurn() }
        takeUpStalled()
        flushDirty()
        if tidyAt <= now { tidy() } else if tidyAt == .max { tidyAt = now + Self.tidyInterval }
    }

    /// A burst of calls, or of large bodies, must not be paid for in memory until the restart. The turn after this one arms it again
    /// only if it has anything to do, so that an idle poold sleeps.
    private mutating func tidy() {
        blocks.trim()
        _ = cpoold_trim_malloc(Self.keptHeapBytes)
        tidyAt = .max
    }

    /// Who calls before the first worker is there would learn no method: they wait in the listen queue.
    private mutating func openWhenReady() {
        var all = true
        for pool in 0..<poolCount
        where !pools[pool].isRemoved && pools[pool].methods.isEmpty && pools[pool].failure.isEmpty && pools[pool].configuration.policy.workers > 0 {
            all = false
        }
        guard all || now >= openAt else { return }
        isListening = true
        watch(listener, .listener)
        journal.notice("accepting calls", metadata: ["socket": "\(configuration.socketPath)"])
    }

    private mutating func takeSignals() {
        while true {
            let signal = cpoold_next_signal(signals)
            switch signal {
            case 0: return
            case SIGCHLD: reapChildren()
            case SIGTERM, SIGINT: stop()
            case SIGHUP: requestReload(nil)
            default: continue
            }
        }
    }

    /// First: refuse new calls and finish those in flight. Second: at once.
    mutating func stop() {
        if isStopping {
            journal.notice("stopping at once")
            for pool in 0..<poolCount { handle(pool, .shutdownNow) }
            return
        }
        isStopping = true
        journal.notice("stopping", metadata: ["limit_seconds": "\(configuration.shutdownLimit / 1_000_000_000)"])
        serviceStops()
        if listener >= 0 {
            close(listener)
            if !service.callersSocketIsInherited { unlink(configuration.socketPath) }
            listener = -1
        }
        for index in 0..<usedConnections where connections[index].role == .client && connections[index].greeted {
            appendFrame(index, Header(.drain))
        }
        for pool in 0..<poolCount {
            stopTemplate(pool)
            handle(pool, .shutdown(limit: configuration.shutdownLimit))
        }
        endWhenStopped()
    }

    mutating func endWhenStopped() {
        guard isStopping else { return }
        for pool in 0..<poolCount where !pools[pool].isStopped || pools[pool].template.pid > 0 { return }
        // What was answered last still has to leave.
        for index in 0..<usedConnections where connections[index].role != .free && connections[index].unwritten > 0 {
            flush(index)
        }
        if controlListener >= 0 && !service.controlSocketIsInherited { unlink(configuration.controlPath) }
        isOver = true
    }

    /// One event into one machine, then everything it wants done.
    ///
    /// Called while effects are carried out, it only notes the event: the effects at hand come first.
    @inline(__always) mutating func handle(_ pool: Int, _ event: Event) {
        guard !isCarryingOut else { return postponed.append((pool, event)) }
        isCarryingOut = true
        pools[pool].machine.handle(event, now: Instant(nanoseconds: now), into: &effects)
        carryOut(pool)
        isCarryingOut = false
        if !postponed.isEmpty { handlePostponed() }
    }

    mutating func handlePostponed() {
        var at = 0
        isCarryingOut = true
        while at < postponed.count {
            let (pool, event) = postponed[at]
            at += 1
            pools[pool].machine.handle(event, now: Instant(nanoseconds: now), into: &effects)
            carryOut(pool)
        }
        postponed.removeAll(keepingCapacity: true)
        isCarryingOut = false
    }
}
