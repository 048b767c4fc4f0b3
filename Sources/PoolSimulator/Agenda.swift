import PoolCore

/// What the world will do, and when.
enum Happening {
    case arrival
    case spawned(WorkerID)
    case spawnFailed(WorkerID)
    case ready(WorkerID)
    case setupFailed(WorkerID)
    /// The worker's running call, of this number, ends.
    case callEnds(WorkerID, number: UInt64, kind: ReplyKind)
    /// poold reads the worker's socket.
    case read(WorkerID)
    case pong(WorkerID)
    case crash(WorkerID)
    /// A worker that stored `started` looks at deadline and revocation.
    case check(WorkerID, number: UInt64)
    /// A stopped process goes on.
    case resumeProcess(WorkerID)
    case exit(WorkerID, ExitCause)
    case broken(WorkerID)
    case closed(WorkerID)
    case cancel(CallID)
    case abandon(CallID)
    case blamed(MethodID, UInt64)
    case measured(WorkerID, UInt64)
    case operation
}

/// Happenings in order of time, then of their making: a binary heap.
struct Agenda {
    private struct Entry {
        var time: UInt64
        var order: UInt64
        var happening: Happening
        func isBefore(_ other: Entry) -> Bool { time != other.time ? time < other.time : order < other.order }
    }
    private var heap: [Entry] = []
    private var order: UInt64 = 0

    var nextTime: UInt64? { heap.first?.time }
    var isEmpty: Bool { heap.isEmpty }

    mutating func add(_ happening: Happening, at time: UInt64) {
        order += 1
        heap.append(Entry(time: time, order: order, happening: happening))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].isBefore(heap[parent]) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    mutating func pop() -> (time: UInt64, happening: Happening)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var parent = 0
            while true {
                var least = parent
                for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child].isBefore(heap[least]) { least = child }
                guard least != parent else { break }
                heap.swapAt(parent, least)
                parent = least
            }
        }
        return (first.time, first.happening)
    }
}
