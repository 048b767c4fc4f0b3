import CPoold
import Glibc
import Histogram
import PoolWire

extension ChaosLoad {
    /// Of chaos_worker.py: what is wanted, its place in the journal, its token, its checksum.
    static let payloadHeader = 20

    /// The next call of the plan: what it is depends on the seed and its place alone.
    func issueNext(_ due: UInt64) {
        var random = ChaosRandom(seed: seed ^ (token &* 0x2545_f491_4f6c_dd1d))
        var draw = random.below(1000)
        var pool = ChaosPool.echo
        for candidate in ChaosPool.allCases {
            draw -= candidate.share
            if draw < 0 {
                pool = candidate
                break
            }
        }
        issue(pool, pool.work, random.below(connections.count), due, &random)
    }

    /// - Parameter wanted: a place; another is taken where nobody is welcome yet, or who is there leaves.
    func issue(_ pool: ChaosPool, _ work: UInt8, _ wanted: Int, _ due: UInt64, _ random: inout ChaosRandom) {
        token += 1
        var index = wanted
        for _ in connections.indices where !connections[index].isReady || connections[index].isLeaving { index = (index + 1) % connections.count }
        guard connections[index].isReady && !connections[index].isLeaving else { return }

        var length = 0
        switch random.below(1000) {
        case 0: length = (1 << 20) + random.below(3 << 20)
        case 1..<150: length = 1 << (8 + random.below(9))
        case 150..<200: length = -1
        default: length = random.below(200)
        }
        // Without content there is nothing to say what is wanted; only an echo wants nothing.
        if length < 0 && work != UInt8(ascii: "e") { length = 0 }
        if work == UInt8(ascii: "P") { length = 0 }
        let isIdempotent = random.chance(perMille: 300)
        let hasSession = pool == .session || random.chance(perMille: 20)
        // The method may be unknown, or the pool gone: such a call says nothing to its journal.
        let isNoted = length >= 0 && pool != .names && (work != UInt8(ascii: "P")) && random.chance(perMille: 50)
        let budget: UInt64
        switch random.below(100) {
        case 0: budget = 50_000_000
        case 1..<20: budget = 2_000_000_000
        default: budget = 5_000_000_000 + UInt64(random.below(5_000)) * 1_000_000
        }
        var call = OpenCall(
            connection: Int32(index), pool: pool, work: work, length: Int32(length < 0 ? 0 : Self.payloadHeader + length),
            content: Int32(random.below(Self.contentBytes - (length < 0 ? 0 : length) - 1)), journal: nil,
            session: hasSession ? 1 + UInt64(random.below(200)) : 0, budget: work == UInt8(ascii: "Z") ? 300_000_000 : budget, issued: due)
        if isNoted { call.journal = journal.add(idempotent: isIdempotent) }
        let name = pool == .names ? renamed(index, &random) : pool.rawValue > ChaosPool.names.rawValue ? pool.rawValue - 1 : pool.rawValue
        let number = random.chance(perMille: 100) ? 0 : connections[index].numbers[name]
        var flags = FrameFlags.end | UInt8(random.chance(perMille: 100) ? 1 + random.below(2) : 0) << FrameFlags.priorityShift
        if isIdempotent { flags |= FrameFlags.idempotent }
        if number == 0 { flags |= FrameFlags.named }
        let id = token

        frame.removeAll(keepingCapacity: true)
        let prefix = number == 0 ? 1 + Self.names[name].utf8.count : 0
        frame.reserveCapacity(Header.size + prefix + Int(call.length))
        frame.append(contentsOf: repeatElement(0, count: Header.size))
        frame.withUnsafeMutableBytes {
            Header(.call, flags: flags, code: number, id: id, session: call.session, time: call.budget, bodyLength: prefix + Int(call.length))
                .write(to: $0.baseAddress!)
        }
        if number == 0 { frame.appendShortString(Self.names[name]) }
        if call.length > 0 {
            let body = UnsafeRawBufferPointer(start: content + Int(call.content), count: length)
            frame.append(work)
            frame.append(call.journal == nil ? 0 : 1)
            frame.appendBigEndian(UInt16(0))
            frame.appendBigEndian(call.journal ?? 0)
            // Quarantine knows a body by its bytes.
            frame.appendBigEndian(work == UInt8(ascii: "P") ? 0 : id)
            frame.appendBigEndian(Checksum.of(UnsafeRawBufferPointer(rebasing: body.prefix(4096))))
            frame.append(contentsOf: body)
        }
        open[id] = call
        tally.issued += 1
        tally.pools[pool.rawValue].issued += 1
        if disturbances.isAtPeace(pool) {
            tally.pools[pool.rawValue].madeInPeace += 1
            if call.budget < Disturbances.shortBudget { tally.pools[pool.rawValue].madeShortInPeace += 1 }
        }
        write(index)
    }

    /// A method of the pool whose method changes its name: mostly the one that was announced last.
    private func renamed(_ index: Int, _ random: inout ChaosRandom) -> Int {
        let (first, second) = (Self.names.count - 2, Self.names.count - 1)
        if random.chance(perMille: 50) { return first + random.below(2) }
        return connections[index].numbers[second] > connections[index].numbers[first] ? second : first
    }

    // MARK: - Ends

    func ended(_ index: Int, _ header: Header, _ body: UnsafeRawBufferPointer, _ now: UInt64) {
        if !sabotage.isEmpty && header.type == FrameType.result.rawValue && sabotage.remove(.lostReply) != nil { return }
        guard var call = open.removeValue(forKey: header.id), Int(call.connection) == index else {
            let text = String(decoding: body.prefix(200), as: UTF8.self)
            board.violation("connection \(index) got an answer (type \(header.type), code \(header.code)) to \(header.id), which is not open there: \(text)")
            return
        }
        if header.type == FrameType.result.rawValue {
            tally.results += 1
            tally.pools[call.pool.rawValue].results += 1
            if let number = call.journal { journal.endedWithResult(number) }
            if !sabotage.isEmpty && Int(call.length) > Self.payloadHeader && sabotage.remove(.otherBody) != nil { call.content += 1 }
            if !isRight(call, header.id, body) { board.violation("call \(header.id) to \(call.pool) got \(body.count) bytes that are not its \(call.length)") }
            let latency = (now > call.issued ? now - call.issued : 0) / 1000
            tally.latency.record(latency)
            if isCalm(call.issued) { tally.calmLatency.record(latency) }
            return
        }
        let text = String(decoding: body.prefix(2_000), as: UTF8.self)
        guard let status = Status(rawValue: header.code) else {
            board.violation("call \(header.id) ended with status \(header.code), which does not exist: \(text)")
            return
        }
        if header.time == 0 && status == .overloaded { board.violation("overloaded without a retry-after: \(text)") }
        if Self.isRefusal(status) { tally.pools[call.pool.rawValue].refused += 1 } else { tally.pools[call.pool.rawValue].otherErrors += 1 }
        if let number = call.journal { journal.endedWithError(number, notBegun: status.saysNotBegun(text)) }
        let judged = JudgedCall(
            pool: call.pool, work: call.work, session: call.session, budget: call.budget, issued: call.issued, ended: now, wasCancelled: call.wasCancelled)
        let after = "after \((now - min(call.issued, now)) / 1_000_000) ms of \(call.budget / 1_000_000) ms"
        let explanation = disturbances.explains(status, judged) { machine.isBusy(since: call.issued, now: now) }
        tally.count(status.name, explanation)
        switch status {
        case .timeoutWaiting, .timeoutRunning:
            // The budget counts from when poold has read the call, which is later than when it was due.
            if now + 1_000_000 < call.issued + call.budget {
                board.violation("call \(header.id) to \(call.pool) ended with \(status.name) too early, \(after)")
            }
            if explanation == .nothing { tally.pools[call.pool.rawValue].timeoutsInPeace += 1 }
        case .overloaded: if explanation == .nothing { tally.pools[call.pool.rawValue].overloadedInPeace += 1 }
        default:
            if explanation == .nothing {
                board.violation("call \(header.id) to \(call.pool) ended with \(status.name) \(after); no fault explains it: \(text)")
            }
        }
        if explanation == .shortBudget { tally.pools[call.pool.rawValue].shortInPeace += 1 }
    }

    /// Refused or dropped before a worker had it.
    private static func isRefusal(_ status: Status) -> Bool {
        switch status {
        case .overloaded, .draining, .poolUnavailable, .quarantined, .sessionLost, .quotaExceeded: return true
        case .applicationError, .timeoutWaiting, .timeoutRunning, .cancelled, .workerLost, .noSuchPool, .noSuchMethod, .methodGone, .badArguments, .badFrame,
            .frameTooLarge, .unsupportedVersion, .permissionDenied, .resultTooLarge, .resultUnencodable, .setupFailed, .internal:
            return false
        }
    }

    private func isRight(_ call: OpenCall, _ id: UInt64, _ body: UnsafeRawBufferPointer) -> Bool {
        guard body.count == Int(call.length) else { return false }
        guard call.length > 0 else { return true }
        let token = UInt64(bigEndian: body.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        return token == (call.work == UInt8(ascii: "P") ? 0 : id) && body[0] == call.work
            && memcmp(body.baseAddress! + Self.payloadHeader, content + Int(call.content), body.count - Self.payloadHeader) == 0
    }

    /// No fault was at work when it was made, nor in the two seconds before.
    private func isCalm(_ issued: UInt64) -> Bool { lastFaultEnd + 2_000_000_000 < issued }
}

/// CRC-32 as zlib computes it.
enum Checksum {
    private static let table: [UInt32] = (0..<256).map { value in
        var entry = UInt32(value)
        for _ in 0..<8 { entry = entry & 1 == 1 ? 0xedb8_8320 ^ (entry >> 1) : entry >> 1 }
        return entry
    }

    static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        table.withUnsafeBufferPointer { table in
            var value: UInt32 = 0xffff_ffff
            for byte in bytes { value = table[Int((value ^ UInt32(byte)) & 255)] ^ (value >> 8) }
            return value ^ 0xffff_ffff
        }
    }
}
