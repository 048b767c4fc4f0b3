import CPoold
import Glibc
import Synchronization

/// A process to be made.
struct SpawnOrder: Sendable {
    var ticket: UInt64
    var path: String
    var arguments: [String]
    var environment: [String]
    /// Become 0, 1, 2 … in the child; -1: /dev/null. The loop keeps them open until the outcome is there.
    var descriptors: [Int32]
    /// nil: poold's own.
    var directory: String?
}

struct SpawnOutcome: Sendable {
    var ticket: UInt64
    /// 0 if there is none.
    var pid: Int32
    var error: Int32
    /// What failed, for people.
    var step: String
}

/// The main thread spawns, because a child dies with the thread that spawned it; the loop asks and is told.
final class SpawnService: Sendable {
    /// Orders that may wait; the core starts only a few workers at a time.
    static let maximumOrders = 4096

    private struct State {
        var orders: [SpawnOrder] = []
        var outcomes: [SpawnOutcome] = []
        var isOver = false
    }
    private let state = Mutex(State())
    private let orderEvent: Int32
    /// Readable in the loop when outcomes wait.
    let outcomeEvent: Int32

    init() {
        orderEvent = cpoold_event(false)
        outcomeEvent = cpoold_event(true)
    }

    /// From the loop; never blocks. False: too many orders wait.
    func submit(_ order: SpawnOrder) -> Bool {
        let taken = state.withLock { state in
            guard state.orders.count < Self.maximumOrders else { return false }
            state.orders.append(order)
            return true
        }
        if taken { cpoold_event_signal(orderEvent) }
        return taken
    }

    func takeOutcomes() -> [SpawnOutcome] {
        cpoold_event_take(outcomeEvent)
        return state.withLock { state in
            defer { state.outcomes.removeAll() }
            return state.outcomes
        }
    }

    /// From the loop, at its end.
    func finish() {
        state.withLock { $0.isOver = true }
        cpoold_event_signal(orderEvent)
    }

    /// The main thread's life.
    func runOnMainThread() {
        while true {
            cpoold_event_take(orderEvent)
            let (orders, isOver) = state.withLock { state in
                defer { state.orders.removeAll() }
                return (state.orders, state.isOver)
            }
            if isOver { return }
            for order in orders {
                let outcome = Self.spawn(order)
                state.withLock { $0.outcomes.append(outcome) }
                cpoold_event_signal(outcomeEvent)
            }
        }
    }

    private static func spawn(_ order: SpawnOrder) -> SpawnOutcome {
        var arguments: [UnsafeMutablePointer<CChar>?] = order.arguments.map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = order.environment.map { strdup($0) } + [nil]
        defer { for pointer in arguments + environment { free(pointer) } }
        var error: Int32 = 0
        var step: Int32 = 0
        let pid = order.path.withCString { path in
            order.descriptors.withUnsafeBufferPointer { descriptors in
                arguments.withUnsafeMutableBufferPointer { arguments in
                    environment.withUnsafeMutableBufferPointer { environment in
                        var request = cpoold_spawn()
                        request.path = path
                        request.argv = UnsafePointer(arguments.baseAddress)
                        request.envp = UnsafePointer(environment.baseAddress)
                        request.descriptors = descriptors.baseAddress
                        request.descriptor_count = Int32(descriptors.count)
                        guard let directory = order.directory else { return cpoold_spawn(&request, &error, &step) }
                        return directory.withCString { directory in
                            request.directory = directory
                            return cpoold_spawn(&request, &error, &step)
                        }
                    }
                }
            }
        }
        guard pid > 0 else { return SpawnOutcome(ticket: order.ticket, pid: 0, error: error, step: describe(step, order.path)) }
        return SpawnOutcome(ticket: order.ticket, pid: pid, error: 0, step: "")
    }

    private static func describe(_ step: Int32, _ path: String) -> String {
        switch UInt32(step) {
        case CPOOLD_STEP_FORK.rawValue: return "fork"
        case CPOOLD_STEP_GROUP.rawValue: return "making a process group"
        case CPOOLD_STEP_DESCRIPTORS.rawValue: return "passing descriptors"
        case CPOOLD_STEP_LIMITS.rawValue: return "setting limits and folder"
        case CPOOLD_STEP_PARENT.rawValue: return "tying it to poold's life"
        case CPOOLD_STEP_EXEC.rawValue: return "executing \(path)"
        default: return "spawning"
        }
    }
}
