/// Where a call is.
///
/// - free: → queued, sent (admitted)
/// - queued: → sent, free (ended)
/// - pinned: waits for its session's worker, or for its target. → sent, free
/// - sent: → free (replied, ended), queued (taken back, or its worker died before it began)
/// - revoking: the shell is asked whether it has begun. → free, sent, queued
enum CallPlace: UInt8, BitwiseCopyable {
    case free, queued, pinned, sent, revoking
}

/// Why a sent call is being revoked.
enum RevokeReason: UInt8, BitwiseCopyable {
    case none, expired, cancelled, abandoned, takenBack
}

struct CallRecord: BitwiseCopyable {
    static let noLink = UInt32.max
    var generation: UInt32 = 0
    /// Neighbours in its flow's or worker's list; `next` also links the free records.
    var previous = CallRecord.noLink
    var next = CallRecord.noLink
    var bodyBytes: UInt32 = 0
    var arrived = Instant.zero
    var deadline = Instant.zero
    /// When its worker was given it, while sent.
    var sentAt = Instant.zero
    var session: UInt64 = 0
    /// What it added to the work of its queue.
    var cost: Nanoseconds = 0
    /// Its number on its worker, while sent.
    var number: UInt64 = 0
    var identity: UInt16 = 0
    var method: UInt16 = 0
    var slot: UInt16 = 0
    var place = CallPlace.free
    var priority = Priority.normal
    var reason = RevokeReason.none
    /// How often it began on a worker that was lost.
    var attempts: UInt8 = 0
    var idempotent = false
    /// Counted among its session's calls.
    var holdsSession = false
    /// For the worker in `slot` alone; ends with it.
    var isTargeted = false
    /// It was let in to find out whether its method has become faster.
    var isProbe = false
}

/// All calls of a pool, by index; grows to its bound on demand.
struct CallTable {
    var records: [CallRecord] = []
    private var freeHead = CallRecord.noLink
    private(set) var count = 0
    /// May be lowered below `count`: then nothing is added until enough have ended.
    var bound: Int

    init(bound: Int) { self.bound = bound }

    var isFull: Bool { count >= bound }

    /// The caller has checked `isFull`.
    mutating func allocate() -> Int {
        count += 1
        if freeHead != CallRecord.noLink {
            let index = Int(freeHead)
            freeHead = records[index].next
            records[index].next = CallRecord.noLink
            return index
        }
        records.append(CallRecord())
        return records.count - 1
    }

    mutating func free(_ index: Int) {
        records[index].generation &+= 1
        records[index].place = .free
        records[index].reason = .none
        records[index].previous = CallRecord.noLink
        records[index].next = freeHead
        freeHead = UInt32(index)
        count -= 1
    }

    func id(_ index: Int) -> CallID { CallID(index: UInt32(index), generation: records[index].generation) }

    /// The index of a call that still lives.
    func live(_ id: CallID) -> Int? {
        let index = Int(id.index)
        guard index < records.count, records[index].generation == id.generation, records[index].place != .free else {
            return nil
        }
        return index
    }

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&freeHead)
        coder.code(&count)
        coder.code(&bound)
        coder.code(&records, empty: CallRecord()) { record, coder in
            coder.code(&record.generation)
            coder.code(&record.previous)
            coder.code(&record.next)
            coder.code(&record.bodyBytes)
            coder.code(&record.arrived)
            coder.code(&record.deadline)
            coder.code(&record.sentAt)
            coder.code(&record.session)
            coder.code(&record.cost)
            coder.code(&record.number)
            coder.code(&record.identity)
            coder.code(&record.method)
            coder.code(&record.slot)
            coder.code(&record.place)
            coder.code(&record.priority)
            coder.code(&record.reason)
            coder.code(&record.attempts)
            coder.code(&record.idempotent)
            coder.code(&record.holdsSession)
            coder.code(&record.isTargeted)
            coder.code(&record.isProbe)
        }
    }
}
