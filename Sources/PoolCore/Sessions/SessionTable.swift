/// Which worker a session belongs to: bounded, in order of last use.
struct SessionTable {
    struct Key: Hashable, BitwiseCopyable {
        var identity: UInt16
        var session: UInt64
    }

    struct Entry: BitwiseCopyable {
        var key = Key(identity: 0, session: 0)
        var worker = WorkerID(slot: 0, generation: 0)
        var lastUsed = Instant.zero
        /// Calls at its worker or waiting for it: meanwhile it does not expire and is in no order. Counted with `require` only.
        var calls: UInt32 = 0
        /// Neighbours by last use; `next` (older) also links free entries.
        var newer = UInt32.max
        var older = UInt32.max
        var isUsed = false
    }

    private static let none = UInt32.max
    /// Looked up, never iterated: its order is not deterministic.
    private var index: [Key: UInt32] = [:]
    private var entries: [Entry] = []
    private var freeHead = SessionTable.none
    private var newest = SessionTable.none
    private var oldest = SessionTable.none
    private var countByIdentity: [UInt32] = []
    private(set) var count = 0

    func count(of identity: UInt16) -> Int {
        Int(identity) < countByIdentity.count ? Int(countByIdentity[Int(identity)]) : 0
    }

    func worker(_ key: Key) -> WorkerID? {
        guard let at = index[key] else { return nil }
        return entries[Int(at)].worker
    }

    /// Binds or re-binds, and marks as used now. The caller has checked the bounds for a new one.
    mutating func bind(_ key: Key, to worker: WorkerID, now: Instant) {
        if let at = index[key] {
            if entries[Int(at)].calls == 0 { unlink(Int(at)) }
            entries[Int(at)].worker = worker
            entries[Int(at)].lastUsed = now
            if entries[Int(at)].calls == 0 { linkNewest(Int(at)) }
            return
        }
        let at: Int
        if freeHead != Self.none {
            at = Int(freeHead)
            freeHead = entries[at].older
        } else {
            entries.append(Entry())
            at = entries.count - 1
        }
        entries[at] = Entry(key: key, worker: worker, lastUsed: now, isUsed: true)
        index[key] = UInt32(at)
        linkNewest(at)
        while countByIdentity.count <= Int(key.identity) { countByIdentity.append(0) }
        countByIdentity[Int(key.identity)] += 1
        count += 1
    }

    /// A call of this session is on its way; false: there is no such session.
    mutating func hold(_ key: Key) -> Bool {
        guard let at = index[key] else { return false }
        if entries[Int(at)].calls == 0 { unlink(Int(at)) }
        entries[Int(at)].calls += 1
        return true
    }

    /// A call that was held has ended. The session may have been lost and begun anew elsewhere since.
    mutating func letGo(_ key: Key, of worker: WorkerID, now: Instant) {
        guard let at = index[key], entries[Int(at)].worker == worker, entries[Int(at)].calls > 0 else { return }
        entries[Int(at)].calls -= 1
        guard entries[Int(at)].calls == 0 else { return }
        entries[Int(at)].lastUsed = now
        linkNewest(Int(at))
    }

    mutating func remove(_ key: Key) {
        guard let at = index.removeValue(forKey: key) else { return }
        if entries[Int(at)].calls == 0 { unlink(Int(at)) }
        entries[Int(at)].isUsed = false
        entries[Int(at)].older = freeHead
        freeHead = at
        countByIdentity[Int(key.identity)] -= 1
        count -= 1
    }

    /// The session that was unused for the longest, of those that have no call.
    var leastRecentlyUsed: Entry? { oldest == Self.none ? nil : entries[Int(oldest)] }

    /// Up to `limit` sessions by their place in the table.
    func first(_ limit: Int) -> [Entry] {
        var found: [Entry] = []
        for entry in entries where entry.isUsed {
            guard found.count < min(limit, count) else { break }
            found.append(entry)
        }
        return found
    }

    private mutating func linkNewest(_ at: Int) {
        entries[at].newer = Self.none
        entries[at].older = newest
        if newest != Self.none { entries[Int(newest)].newer = UInt32(at) } else { oldest = UInt32(at) }
        newest = UInt32(at)
    }

    private mutating func unlink(_ at: Int) {
        let (newer, older) = (entries[at].newer, entries[at].older)
        if newer != Self.none { entries[Int(newer)].older = older } else { newest = older }
        if older != Self.none { entries[Int(older)].newer = newer } else { oldest = newer }
    }

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&entries, empty: Entry()) { entry, coder in
            coder.code(&entry.key.identity)
            coder.code(&entry.key.session)
            coder.code(&entry.worker.slot)
            coder.code(&entry.worker.generation)
            coder.code(&entry.lastUsed)
            coder.code(&entry.calls)
            coder.code(&entry.newer)
            coder.code(&entry.older)
            coder.code(&entry.isUsed)
        }
        coder.code(&freeHead)
        coder.code(&newest)
        coder.code(&oldest)
        coder.code(&countByIdentity, empty: 0) { $1.code(&$0) }
        coder.code(&count)
        guard coder.isReading else { return }
        index.removeAll(keepingCapacity: true)
        for (at, entry) in entries.enumerated() where entry.isUsed { index[entry.key] = UInt32(at) }
    }
}
