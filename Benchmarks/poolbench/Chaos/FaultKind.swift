/// What chaos does to poold, its workers and its other clients.
enum FaultKind: String, CaseIterable {
    // Processes.
    case killWorker = "kill -9 of a worker"
    case stopWorker = "SIGSTOP of a worker, later SIGCONT"
    case terminateWorker = "SIGTERM of a worker"
    case killTemplate = "kill -9 of a template"
    case killGuard = "kill -9 of the guard"
    // Operators.
    case recycleOne = "recycle of one worker"
    case recycleAll = "recycle of a pool"
    case scale = "scale"
    case drainAndResume = "drain, then resume"
    case operatorKill = "kill by operation"
    case warm = "warm"
    case stack = "stack"
    case look = "status, stats, events, calls …"
    case clearQuarantine = "clear quarantine"
    // Reloads.
    case reloadLimit = "reload: a limit changed"
    case reloadPool = "reload: a pool added or removed"
    case reloadRename = "reload: a method renamed"
    case reloadBroken = "reload of a broken file"
    // Hostile clients.
    case garbage = "hostile: garbage"
    case truncatedFrame = "hostile: a truncated frame"
    case hugeLength = "hostile: a huge length"
    case byteByByte = "hostile: a call byte by byte"
    case connectFlood = "hostile: 200 connections at once"
    case neverReads = "hostile: never reads"
    case unknownMethods = "hostile: unknown methods"
    case memoryDescriptor = "hostile: a memfd attached"
    case hangUp = "hostile: hangs up with calls in flight"
    case controlGarbage = "hostile: garbage on the control socket"
    // Our own connections.
    case disconnect = "disconnect with calls in flight"
    case cancelStorm = "cancel storm"
    // Misbehaviour of workers, by calls.
    case raise = "worker raises"
    case systemExit = "worker calls sys.exit"
    case hardExit = "worker calls os._exit"
    case segfault = "worker segfaults"
    case leak = "worker leaks 20 MB"
    case flood = "worker floods stdout"
    case grandchild = "worker forks a child"
    case oversleep = "worker sleeps beyond the budget"
    case holdLock = "worker holds the GIL for 300 ms"
    case poison = "the same body kills workers"

    /// How often, beside the others.
    var weight: Int {
        switch self {
        case .killWorker: return 12
        case .stopWorker, .terminateWorker, .recycleOne, .scale, .look: return 6
        case .operatorKill, .garbage, .truncatedFrame, .cancelStorm, .disconnect: return 4
        case .killTemplate, .recycleAll, .drainAndResume, .warm, .stack, .reloadLimit, .reloadPool, .reloadRename, .hugeLength, .byteByByte, .neverReads,
            .unknownMethods, .hangUp, .raise, .hardExit, .leak, .grandchild, .oversleep, .holdLock:
            return 3
        case .clearQuarantine, .connectFlood, .memoryDescriptor, .controlGarbage, .systemExit, .segfault, .flood, .poison: return 2
        case .killGuard, .reloadBroken: return 1
        }
    }

    /// The work that chaos_worker.py is asked for, of misbehaviour by calls.
    var work: UInt8? {
        switch self {
        case .raise: return UInt8(ascii: "r")
        case .systemExit: return UInt8(ascii: "x")
        case .hardExit: return UInt8(ascii: "X")
        case .segfault: return UInt8(ascii: "S")
        case .leak: return UInt8(ascii: "L")
        case .flood: return UInt8(ascii: "F")
        case .grandchild: return UInt8(ascii: "G")
        case .oversleep: return UInt8(ascii: "Z")
        case .holdLock: return UInt8(ascii: "H")
        case .poison: return UInt8(ascii: "P")
        case .killWorker, .stopWorker, .terminateWorker, .killTemplate, .killGuard, .recycleOne, .recycleAll, .scale, .drainAndResume, .operatorKill, .warm,
            .stack, .look, .clearQuarantine, .reloadLimit, .reloadPool, .reloadRename, .reloadBroken, .garbage, .truncatedFrame, .hugeLength, .byteByByte,
            .connectFlood, .neverReads, .unknownMethods, .memoryDescriptor, .hangUp, .controlGarbage, .disconnect, .cancelStorm:
            return nil
        }
    }
}

/// One fault of the plan.
struct PlannedFault {
    /// Since the load began.
    var seconds: Double
    var kind: FaultKind
    /// What the fault draws its details from.
    var seed: UInt64
}

/// When what happens: by the seed alone.
enum FaultPlan {
    /// Faults come for the first part of each cycle; the rest is for callers to be served in peace, and measured.
    static let cycle = 20.0
    static let stormy = 14.0
    static let meanGap = 0.5

    static func make(seed: UInt64, seconds: Double) -> [PlannedFault] {
        var random = ChaosRandom(seed: seed ^ 0xfa17)
        // Each kind once before chance decides, so that a short run knows them all.
        var first = FaultKind.allCases
        for at in first.indices { first.swapAt(at, at + random.below(first.count - at)) }
        let weights = FaultKind.allCases.reduce(0) { $0 + $1.weight }
        var plan: [PlannedFault] = []
        var at = 1.0
        while true {
            at += meanGap * (0.2 + 1.6 * random.unit())
            if at.truncatingRemainder(dividingBy: cycle) > stormy { at = (at / cycle).rounded(.up) * cycle }
            guard at < seconds else { return plan }
            var kind: FaultKind
            if let due = first.popLast() {
                kind = due
            } else {
                var draw = random.below(weights)
                kind = .killWorker
                for candidate in FaultKind.allCases {
                    draw -= candidate.weight
                    if draw < 0 {
                        kind = candidate
                        break
                    }
                }
            }
            plan.append(PlannedFault(seconds: at, kind: kind, seed: random.next()))
        }
    }
}
