import Logging
import PoolConfig
import PoolCore
import PoolWire

/// Which methods callers may call, and the numbers that they know them by.
///
/// While a pool's workers are replaced by ones of other code they differ. A method is told to callers once every worker that
/// serves has it, and withdrawn when none has it any more; so a caller never learns of a method that its call could not find.
extension Shell {
    // MARK: - What workers tell

    /// Set-up has succeeded: its method numbers, and methods that the pool has not seen.
    mutating func learn(_ pool: Int, _ worker: WorkerID, _ list: [MethodEntry]) {
        var numbers: [UInt16] = []
        for entry in list {
            guard let method = place(of: entry, pool) else {
                journal.error("too many methods; the rest cannot be called", metadata: metadata(pool, worker))
                break
            }
            while numbers.count <= method { numbers.append(0) }
            numbers[method] = entry.number
        }
        pools[pool].workers[Int(worker.slot)].numbers = numbers
        pools[pool].failure = ""
        startEnded(pool, worker)
        handle(pool, .workerReady(worker))
        reviewMethods(pool)
    }

    /// Where a method stands in its pool; nil: the pool has too many.
    private mutating func place(of entry: MethodEntry, _ pool: Int) -> Int? {
        if let known = pools[pool].methodByName[entry.name] {
            let method = Int(known)
            if pools[pool].methods[method].codec != entry.codec || pools[pool].methods[method].flags != entry.flags {
                // To callers it is another method now.
                if pools[pool].methods[method].number != 0 { announce(withdrawing: [(pool, method)]) }
                pools[pool].methods[method].codec = entry.codec
                pools[pool].methods[method].flags = entry.flags
            }
            return method
        }
        guard pools[pool].methods.count < PoolPolicy.maximumMethods else { return nil }
        pools[pool].methods.append(PoolMethod(name: entry.name, codec: entry.codec, flags: entry.flags, number: 0))
        pools[pool].methodByName[entry.name] = UInt16(pools[pool].methods.count - 1)
        return pools[pool].methods.count - 1
    }

    /// A worker began or ceased to serve.
    mutating func reviewDueMethods() {
        let due = methodReviews
        methodReviews.removeAll(keepingCapacity: true)
        for pool in due { reviewMethods(pool) }
    }

    private mutating func reviewMethods(_ pool: Int) {
        // A pool that is no longer configured may still start a worker for the calls that it has: its methods stay withdrawn.
        guard !pools[pool].isRemoved else { return }
        var serving = 0
        var having = [Int](repeating: 0, count: pools[pool].methods.count)
        for slot in 0..<pools[pool].workerCapacity {
            let entry = pools[pool].workers + slot
            guard entry.pointee.pid > 0, pools[pool].machine.isServing(WorkerID(slot: UInt16(slot), generation: entry.pointee.generation)) else { continue }
            serving += 1
            for (method, number) in entry.pointee.numbers.enumerated() where number != 0 { having[method] += 1 }
        }
        guard serving > 0 else { return }
        var added: [(Int, Int)] = []
        var withdrawn: [(Int, Int)] = []
        pools[pool].methodsDiffer = false
        for method in having.indices {
            if having[method] == serving {
                if pools[pool].methods[method].number == 0 { added.append((pool, method)) }
            } else if having[method] == 0 {
                if pools[pool].methods[method].number != 0 { withdrawn.append((pool, method)) }
            } else {
                pools[pool].methodsDiffer = true
            }
        }
        if !added.isEmpty || !withdrawn.isEmpty { announce(adding: added, withdrawing: withdrawn) }
    }

    /// A worker of newer code was given a call of a method that it does not have any more.
    mutating func sayMethodIsGone() {
        replyHeader.code = Status.methodGone.rawValue
        replyBody = Self.goneText
        replyHeader.length = Header.lengthOfEmptyBody &+ UInt32(replyBody.count)
    }

    /// Never changed, never freed.
    private nonisolated(unsafe) static let goneText: UnsafeRawBufferPointer = {
        let text = Array("the method was withdrawn by a reload while the call waited; it has had no effect. See METHODS, or call by name".utf8)
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: text.count, alignment: 1)
        copy.copyBytes(from: text)
        return UnsafeRawBufferPointer(copy)
    }()

    // MARK: - What callers know

    /// All methods of a pool.
    mutating func withdrawMethods(_ pool: Int) {
        let known = pools[pool].methods.indices.filter { pools[pool].methods[$0].number != 0 }
        if !known.isEmpty { announce(withdrawing: known.map { (pool, $0) }) }
    }

    /// Gives numbers to some methods, takes those of others, and tells every greeted caller of those that it may call.
    private mutating func announce(adding added: [(pool: Int, method: Int)] = [], withdrawing withdrawn: [(pool: Int, method: Int)] = []) {
        var entries: [(pool: Int, entry: MethodEntry)] = []
        for (pool, method) in withdrawn {
            var entry = self.entry(pool, method)
            entry.flags |= MethodEntry.withdrawn
            entries.append((pool, entry))
            globalMethods[Int(entry.number) - 1].isWithdrawn = true
            methodNumbers[entry.name] = nil
            pools[pool].methods[method].number = 0
        }
        for (pool, method) in added {
            guard methodCount < Self.maximumMethods else {
                journal.error("method cannot be called: all numbers are used up; restart poold", metadata: ["pool": "\(pools[pool].configuration.name)"])
                break
            }
            globalMethods[methodCount] = GlobalMethod(pool: UInt16(pool), method: UInt16(method), isWithdrawn: false)
            methodCount += 1
            pools[pool].methods[method].number = UInt16(methodCount)
            let entry = self.entry(pool, method)
            methodNumbers[entry.name] = UInt16(methodCount)
            entries.append((pool, entry))
        }
        welcomeBodies.removeAll(keepingCapacity: true)
        var bodies: [UInt16: [UInt8]] = [:]
        for index in 0..<usedConnections where connections[index].role == .client && connections[index].greeted {
            let number = connections[index].access
            if bodies[number] == nil {
                let allowed = entries.filter { access.mayCall(number, pools[$0.pool].configuration) }.map(\.entry)
                bodies[number] = allowed.isEmpty ? [] : MethodEntry.encoded(allowed)
            }
            guard let body = bodies[number], !body.isEmpty else { continue }
            body.withUnsafeBytes { appendFrame(index, Header(.methods), $0) }
            checkUnread(index)
        }
    }

    private func entry(_ pool: Int, _ method: Int) -> MethodEntry {
        let known = pools[pool].methods[method]
        return MethodEntry(number: known.number, codec: known.codec, flags: known.flags, name: "\(pools[pool].configuration.name).\(known.name)")
    }

    /// What WELCOME tells a caller of this class.
    mutating func welcomeBody(_ number: UInt16) -> [UInt8] {
        if let made = welcomeBodies[number] { return made }
        var entries: [MethodEntry] = []
        for place in 0..<methodCount where !globalMethods[place].isWithdrawn {
            let (pool, method) = (Int(globalMethods[place].pool), Int(globalMethods[place].method))
            if access.mayCall(number, pools[pool].configuration) { entries.append(entry(pool, method)) }
        }
        let body = Welcome(
            calls: UInt16(min(configuration.callsPerConnection, 65_535)), largestBody: UInt32(configuration.largestBody), methods: entries
        ).encoded
        welcomeBodies[number] = body
        return body
    }
}
