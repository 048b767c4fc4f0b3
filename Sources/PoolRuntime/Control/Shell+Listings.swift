import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolProtocol
import PoolWire
import SwiftProtobuf

extension Shell {
    /// Lines of one answer; the loop must not stall for an operator.
    private static let maximumLines = 1000

    // MARK: - Calls

    func listCalls(_ body: [UInt8]) throws -> [UInt8] {
        var message = Poold_V1_Calls()
        var peers: [Int: (uid: UInt32, pid: Int32)] = [:]
        for pool in try filtered(Poold_V1_PoolFilter(serializedBytes: body).pool) {
            message.total += UInt32(pools[pool].machine.callCount)
            let room = Self.maximumLines - message.calls.count
            guard room > 0 else { continue }
            for call in pools[pool].machine.listCalls(now: Instant(nanoseconds: now), limit: room) {
                message.calls.append(line(pool, call, &peers))
            }
        }
        return try message.serializedBytes()
    }

    private func line(_ pool: Int, _ call: CallListing, _ peers: inout [Int: (uid: UInt32, pid: Int32)]) -> Poold_V1_InFlightCall {
        let name = pools[pool].configuration.name
        let context = pools[pool].contexts + Int(call.call.index)
        var line = Poold_V1_InFlightCall()
        line.pool = name
        line.method = methodName(pool, call.method)
        line.call = "\(name):\(call.call.index).\(call.call.generation)"
        line.place = call.place.rawValue
        if let worker = call.worker {
            line.worker = "\(worker.slot).\(worker.generation)"
            if let page = pools[pool].workers[Int(worker.slot)].page { line.running = cpoold_load(page + 2) == call.number }
        }
        let index = Int(context.pointee.connection)
        if index >= 0 {
            let peer = peers[index] ?? peerProcess(index)
            peers[index] = peer
            line.uid = peer.uid
            line.clientPid = peer.pid
        }
        line.session = call.session
        line.ageNanoseconds = call.age
        line.remainingNanoseconds = call.remaining
        line.bodyBytes = UInt64(context.pointee.bodyLength)
        line.priority = "\(call.priority)"
        line.attempts = UInt32(call.attempts)
        line.idempotent = call.idempotent
        return line
    }

    /// Asked when it is shown, so that a connection need not carry it.
    private func peerProcess(_ index: Int) -> (uid: UInt32, pid: Int32) {
        var uid: UInt32 = 0
        var gid: UInt32 = 0
        var pid: Int32 = 0
        _ = cpoold_peer(connections[index].descriptor, &uid, &gid, &pid)
        return (uid, pid)
    }

    /// `POOL:INDEX.GENERATION`, as listed.
    mutating func cancelCall(_ body: [UInt8]) throws -> [UInt8] {
        let text = try Poold_V1_CancelRequest(serializedBytes: body).call
        guard let colon = text.lastIndex(of: ":") else { throw notACall(text) }
        let parts = text[text.index(after: colon)...].split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, let index = UInt32(parts[0]), let generation = UInt32(parts[1]) else { throw notACall(text) }
        let call = CallID(index: index, generation: generation)
        let name = String(text[..<colon])
        // Calls of a removed pool are listed until they have ended, and another pool may have its name by then.
        let holders = (0..<poolCount).filter { pools[$0].configuration.name == name && pools[$0].machine.isInFlight(call) }
        guard let pool = holders.first else {
            _ = try find(name)
            throw ControlFault(status: .badArguments, text: "call \(text) has ended already; see poolctl calls")
        }
        guard holders.count == 1 else {
            throw ControlFault(
                status: .badArguments, text: "two calls have the name \(text): a removed pool \(name) finishes one, the pool that took its name has the other")
        }
        operatorCancel = CallReference(pool: pool, index: index)
        handle(pool, .callCancelled(call))
        operatorCancel = .none
        journal.notice("call cancelled by an operator", metadata: ["pool": "\(pools[pool].configuration.name)", "call": "\(text)"])
        return try done("call \(text) ends with cancelled; if it runs, its worker is interrupted", affected: 1)
    }

    private func notACall(_ text: String) -> ControlFault {
        ControlFault(status: .badArguments, text: "\(text) does not name a call; poolctl calls lists them as POOL:INDEX.GENERATION")
    }

    // MARK: - Sessions

    func listSessions(_ body: [UInt8]) throws -> [UInt8] {
        var users: [UInt16: UInt32] = [:]
        for (uid, identity) in identities { users[identity] = uid }
        var message = Poold_V1_Sessions()
        for pool in try filtered(Poold_V1_PoolFilter(serializedBytes: body).pool) {
            message.total += UInt32(pools[pool].machine.sessionCount)
            let room = Self.maximumLines - message.sessions.count
            guard room > 0 else { continue }
            for session in pools[pool].machine.listSessions(now: Instant(nanoseconds: now), limit: room) {
                var line = Poold_V1_Session()
                line.pool = pools[pool].configuration.name
                line.session = session.session
                line.uid = users[session.identity.index] ?? 0
                line.worker = "\(session.worker.slot).\(session.worker.generation)"
                line.calls = UInt32(session.calls)
                line.unusedNanoseconds = session.unused
                message.sessions.append(line)
            }
        }
        return try message.serializedBytes()
    }

    // MARK: - Events

    func listEvents(_ body: [UInt8]) throws -> [UInt8] {
        let request = try Poold_V1_EventsRequest(serializedBytes: body)
        let (kept, lost) = journal.entries(after: request.after)
        var message = Poold_V1_Events()
        message.last = journal.last
        message.lost = lost
        for entry in kept where request.pool.isEmpty || entry.metadata["pool"] == request.pool {
            var event = Poold_V1_OperatorEvent()
            event.number = entry.number
            event.at = entry.at
            event.level = "\(entry.level)"
            event.message = entry.message
            event.metadata = entry.metadata
            message.events.append(event)
        }
        return try message.serializedBytes()
    }
}
