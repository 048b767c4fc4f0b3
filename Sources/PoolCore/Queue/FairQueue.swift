/// Waiting calls: three classes, and in each a flow per identity, served by start-time fair queueing
/// (Goyal, Vin, Cheng 1996) in estimated worker time. So an identity with a hundred connections, or with
/// slow calls, takes no more of the workers than one with a single connection, and none of what is not asked for.
///
/// The queue holds indices of a `CallTable`; links live in the records, so removal is O(1).
struct FairQueue {
    /// A lower class is served once after this many calls of higher ones.
    static let starvationBound: UInt32 = 16

    struct Flow: BitwiseCopyable {
        var head = CallRecord.noLink
        var tail = CallRecord.noLink
        var count: UInt32 = 0
        var work: Nanoseconds = 0
        /// Virtual time at which its next call begins.
        var start: UInt64 = 0
        /// Position in its class's heap; `.max` when it has no calls.
        var position = UInt32.max
    }

    struct Class {
        /// Flow indices with calls, a binary heap by (start, flow).
        var heap: [UInt32] = []
        var virtualTime: UInt64 = 0
        var count = 0
        var work: Nanoseconds = 0
        var passedOver: UInt32 = 0
    }

    /// By identity * 3 + priority.
    private var flows: [Flow] = []
    private var classes = [Class(), Class(), Class()]
    private var bytesByIdentity: [UInt64] = []
    private(set) var count = 0
    private(set) var bytes: UInt64 = 0
    private(set) var work: Nanoseconds = 0

    private static func order(_ rank: Int) -> Priority { rank == 0 ? .high : rank == 1 ? .normal : .low }

    private func flowIndex(_ identity: UInt16, _ priority: Priority) -> Int {
        Int(identity) * 3 + Int(priority.rawValue)
    }

    mutating func prepare(identity: UInt16) {
        while bytesByIdentity.count <= Int(identity) {
            bytesByIdentity.append(0)
            for _ in 0..<3 { flows.append(Flow()) }
        }
    }

    func bytes(of identity: UInt16) -> UInt64 {
        Int(identity) < bytesByIdentity.count ? bytesByIdentity[Int(identity)] : 0
    }

    /// The bytes of a call that waits, here or for one worker alone.
    mutating func hold(_ record: CallRecord) {
        prepare(identity: record.identity)
        bytesByIdentity[Int(record.identity)] += UInt64(record.bodyBytes)
        bytes += UInt64(record.bodyBytes)
    }

    mutating func letGo(_ record: CallRecord) {
        bytesByIdentity[Int(record.identity)] -= UInt64(record.bodyBytes)
        bytes -= UInt64(record.bodyBytes)
    }

    /// Estimated worker time that is served before a new call of this flow.
    func workAhead(identity: UInt16, priority: Priority) -> Nanoseconds {
        var ahead: Nanoseconds = 0
        for rank in 0..<3 {
            let priorityOfRank = Self.order(rank)
            let group = classes[Int(priorityOfRank.rawValue)]
            if priorityOfRank != priority {
                ahead &+= group.work
                continue
            }
            let index = flowIndex(identity, priority)
            guard index < flows.count, !group.heap.isEmpty else { return ahead }
            let active = UInt64(group.heap.count) + (flows[index].count == 0 ? 1 : 0)
            // Its own calls, and as much of every other flow while those are served.
            return ahead &+ min(group.work, flows[index].work &* active)
        }
        return ahead
    }

    mutating func pushBack(_ index: Int, _ table: inout CallTable) {
        let flow = enter(index, table)
        let tail = flows[flow].tail
        table.records[index].previous = tail
        table.records[index].next = CallRecord.noLink
        if tail == CallRecord.noLink {
            flows[flow].head = UInt32(index)
        } else {
            table.records[Int(tail)].next = UInt32(index)
        }
        flows[flow].tail = UInt32(index)
    }

    mutating func pushFront(_ index: Int, _ table: inout CallTable) {
        let flow = enter(index, table)
        let head = flows[flow].head
        table.records[index].previous = CallRecord.noLink
        table.records[index].next = head
        if head == CallRecord.noLink {
            flows[flow].tail = UInt32(index)
        } else {
            table.records[Int(head)].previous = UInt32(index)
        }
        flows[flow].head = UInt32(index)
    }

    private mutating func enter(_ index: Int, _ table: CallTable) -> Int {
        let record = table.records[index]
        prepare(identity: record.identity)
        let flow = flowIndex(record.identity, record.priority)
        let group = Int(record.priority.rawValue)
        flows[flow].count += 1
        flows[flow].work &+= record.cost
        classes[group].count += 1
        classes[group].work &+= record.cost
        hold(record)
        count += 1
        work &+= record.cost
        if flows[flow].count == 1 {
            flows[flow].start = max(flows[flow].start, classes[group].virtualTime)
            flows[flow].position = UInt32(classes[group].heap.count)
            classes[group].heap.append(UInt32(flow))
            siftUp(group, classes[group].heap.count - 1)
        }
        return flow
    }

    mutating func remove(_ index: Int, _ table: inout CallTable) {
        let record = table.records[index]
        let flow = flowIndex(record.identity, record.priority)
        let group = Int(record.priority.rawValue)
        if record.previous == CallRecord.noLink {
            flows[flow].head = record.next
        } else {
            table.records[Int(record.previous)].next = record.next
        }
        if record.next == CallRecord.noLink {
            flows[flow].tail = record.previous
        } else {
            table.records[Int(record.next)].previous = record.previous
        }
        table.records[index].previous = CallRecord.noLink
        table.records[index].next = CallRecord.noLink
        flows[flow].count -= 1
        flows[flow].work &-= record.cost
        classes[group].count -= 1
        classes[group].work &-= record.cost
        letGo(record)
        count -= 1
        work &-= record.cost
        if flows[flow].count == 0 { leaveHeap(group, flow) }
    }

    /// The call to serve next and takes it out; `newest` takes the youngest of the flow whose turn it is.
    mutating func pop(newest: Bool, _ table: inout CallTable, _ times: ServiceTimes) -> Int? {
        guard count > 0 else { return nil }
        var chosen: Priority?
        for rank in 0..<3 {
            let priority = Self.order(rank)
            let group = Int(priority.rawValue)
            guard classes[group].count > 0 else { continue }
            if chosen == nil {
                chosen = priority
            } else if classes[group].passedOver >= Self.starvationBound {
                chosen = priority
                break
            } else {
                classes[group].passedOver += 1
            }
        }
        guard let chosen else { return nil }
        let group = Int(chosen.rawValue)
        classes[group].passedOver = 0
        let flow = Int(classes[group].heap[0])
        let index = Int(newest ? flows[flow].tail : flows[flow].head)
        // At least 1 µs: a flow whose calls are thought to cost nothing still takes turns.
        // By what is known now: when it came, its method's time may not have been.
        let cost = max(times.cost(table.records[index].method), 1_000)
        classes[group].virtualTime = flows[flow].start
        flows[flow].start &+= cost
        remove(index, &table)
        if flows[flow].count > 0 { siftDown(group, Int(flows[flow].position)) }
        return index
    }

    /// More is known of a method's time than when its waiting calls came.
    mutating func appraise(_ method: UInt16, _ table: inout CallTable, _ times: ServiceTimes) {
        let cost = times.cost(method)
        for (number, group) in classes.enumerated() {
            for flow in group.heap {
                var link = flows[Int(flow)].head
                while link != CallRecord.noLink {
                    let index = Int(link)
                    link = table.records[index].next
                    guard table.records[index].method == method else { continue }
                    let old = table.records[index].cost
                    table.records[index].cost = cost
                    flows[Int(flow)].work = flows[Int(flow)].work &- old &+ cost
                    classes[number].work = classes[number].work &- old &+ cost
                    work = work &- old &+ cost
                }
            }
        }
    }

    /// Any waiting call: for emptying the queue.
    func first() -> Int? {
        for group in classes where !group.heap.isEmpty { return Int(flows[Int(group.heap[0])].head) }
        return nil
    }

    private func before(_ a: UInt32, _ b: UInt32) -> Bool {
        let (x, y) = (flows[Int(a)].start, flows[Int(b)].start)
        return x != y ? x < y : a < b
    }

    private mutating func leaveHeap(_ group: Int, _ flow: Int) {
        let position = Int(flows[flow].position)
        flows[flow].position = .max
        let last = classes[group].heap.removeLast()
        guard Int(last) != flow else { return }
        classes[group].heap[position] = last
        flows[Int(last)].position = UInt32(position)
        siftDown(group, position)
        siftUp(group, Int(flows[Int(last)].position))
    }

    private mutating func exchange(_ group: Int, _ a: Int, _ b: Int) {
        classes[group].heap.swapAt(a, b)
        flows[Int(classes[group].heap[a])].position = UInt32(a)
        flows[Int(classes[group].heap[b])].position = UInt32(b)
    }

    private mutating func siftUp(_ group: Int, _ start: Int) {
        var child = start
        while child > 0 {
            let parent = (child - 1) / 2
            guard before(classes[group].heap[child], classes[group].heap[parent]) else { return }
            exchange(group, child, parent)
            child = parent
        }
    }

    private mutating func siftDown(_ group: Int, _ start: Int) {
        var parent = start
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < classes[group].heap.count {
                if before(classes[group].heap[child], classes[group].heap[least]) { least = child }
            }
            guard least != parent else { return }
            exchange(group, parent, least)
            parent = least
        }
    }

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&flows, empty: Flow()) { flow, coder in
            coder.code(&flow.head)
            coder.code(&flow.tail)
            coder.code(&flow.count)
            coder.code(&flow.work)
            coder.code(&flow.start)
            coder.code(&flow.position)
        }
        coder.code(&classes, empty: Class()) { group, coder in
            coder.code(&group.heap, empty: 0) { $1.code(&$0) }
            coder.code(&group.virtualTime)
            coder.code(&group.count)
            coder.code(&group.work)
            coder.code(&group.passedOver)
        }
        coder.code(&bytesByIdentity, empty: 0) { $1.code(&$0) }
        coder.code(&count)
        coder.code(&bytes)
        coder.code(&work)
    }
}
