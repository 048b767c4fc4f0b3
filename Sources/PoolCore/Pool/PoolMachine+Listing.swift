/// One worker as the machine sees it: what a post-mortem and a stack want to know.
package struct WorkerListing: Sendable {
    package var phase: WorkerPhase
    package var cause: WorkerCause
    package var wasReady: Bool
    /// Calls that it has answered, and that it holds.
    package var calls: UInt64
    package var outstanding: Int
    /// The oldest call that it holds, and since when that one may be running.
    package var first: UInt64
    package var firstSince: Instant
    package var privateBytes: UInt64
}

/// A call in flight.
package struct CallListing: Sendable {
    package enum Place: String, Sendable { case queued, pinned, sent, revoking }
    package var call: CallID
    package var place: Place
    /// While it is at a worker, with its number there.
    package var worker: WorkerID?
    package var number: UInt64
    package var method: MethodID
    package var session: UInt64
    package var age: Nanoseconds
    package var remaining: Nanoseconds
    package var priority: Priority
    package var attempts: Int
    package var idempotent: Bool
}

package struct SessionListing: Sendable {
    package var identity: IdentityID
    package var session: UInt64
    package var worker: WorkerID
    package var calls: Int
    package var unused: Nanoseconds
}

/// A method and body that workers died with.
package struct SuspectListing: Sendable {
    package var method: MethodID
    package var hash: UInt64
    package var deaths: Int
    package var isRefused: Bool
    package var sinceLast: Nanoseconds
    package var remaining: Nanoseconds
}

/// Copies for operators, made on request and bounded by who asks.
extension PoolMachine {
    package func listing(_ worker: WorkerID) -> WorkerListing? {
        guard let slot = live(worker) else { return nil }
        let record = workers[slot]
        return WorkerListing(
            phase: record.phase, cause: record.cause, wasReady: record.readyAt != .zero, calls: record.calls, outstanding: record.outstanding,
            first: record.first, firstSince: record.mark, privateBytes: record.privateBytes)
    }

    /// The method of a call that a worker holds, and the call itself unless it has ended already.
    package func sentCall(_ worker: WorkerID, number: UInt64) -> (method: MethodID, call: CallID?)? {
        guard let slot = live(worker), number >= workers[slot].first, number < workers[slot].next else { return nil }
        let entry = sent[ring(slot, number)]
        return (MethodID(index: entry.method), calls.live(entry.call) == nil ? nil : entry.call)
    }

    /// The call that a worker holds under this number, if its caller is being told that it is given up, or is gone; and whether
    /// because its budget is over.
    package func givenUpCall(_ worker: WorkerID, number: UInt64) -> (call: CallID, isExpired: Bool)? {
        guard let call = sentCall(worker, number: number)?.call, let index = calls.live(call), calls.records[index].place == .revoking else { return nil }
        switch calls.records[index].reason {
        case .none, .takenBack: return nil
        case .expired: return (call, true)
        case .cancelled, .abandoned: return (call, false)
        }
    }

    package var callCount: Int { calls.count }

    package func isInFlight(_ call: CallID) -> Bool { calls.live(call) != nil }

    /// The first `limit` calls by their place in the table.
    package func listCalls(now: Instant, limit: Int) -> [CallListing] {
        var list: [CallListing] = []
        let wanted = min(limit, calls.count)
        for index in calls.records.indices where list.count < wanted {
            let record = calls.records[index]
            let place: CallListing.Place
            switch record.place {
            case .free: continue
            case .queued: place = .queued
            case .pinned: place = .pinned
            case .sent: place = .sent
            case .revoking: place = .revoking
            }
            let isAtWorker = record.place == .sent || record.place == .revoking
            list.append(
                CallListing(
                    call: calls.id(index), place: place, worker: isAtWorker ? id(Int(record.slot)) : nil, number: isAtWorker ? record.number : 0,
                    method: MethodID(index: record.method), session: record.session, age: now.since(record.arrived),
                    remaining: record.deadline.since(now), priority: record.priority, attempts: Int(record.attempts), idempotent: record.idempotent))
        }
        return list
    }

    package var sessionCount: Int { sessions.count }

    /// The first `limit` sessions by their place in the table.
    package func listSessions(now: Instant, limit: Int) -> [SessionListing] {
        sessions.first(limit).map { entry in
            SessionListing(
                identity: IdentityID(index: entry.key.identity), session: entry.key.session, worker: entry.worker, calls: Int(entry.calls),
                unused: entry.calls > 0 ? 0 : now.since(entry.lastUsed))
        }
    }

    /// What workers died with and is not forgotten yet, refused or not.
    package func quarantine(now: Instant) -> [SuspectListing] {
        var list: [SuspectListing] = []
        for suspect in suspects {
            let age = now.since(suspect.last)
            guard age <= policy.quarantineFor else { continue }
            list.append(
                SuspectListing(
                    method: MethodID(index: suspect.method), hash: suspect.hash, deaths: Int(suspect.deaths),
                    isRefused: policy.quarantineDeaths > 0 && Int(suspect.deaths) >= policy.quarantineDeaths, sinceLast: age,
                    remaining: policy.quarantineFor - age))
        }
        return list
    }
}
