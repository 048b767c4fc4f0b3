/// Calls for one worker alone: poold's own, such as warming it. They wait and run like any other, but end with their worker, and
/// are not in the counters of what callers ask for.
extension PoolMachine {
    mutating func arriveForTarget(_ arrival: Arrival, _ effects: inout EffectBuffer) {
        let identity = min(arrival.identity.index, UInt16(PoolPolicy.maximumIdentities - 1))
        queue.prepare(identity: identity)
        if let refusal = targetRefusal(arrival, identity: identity) {
            effects.append(.refuse(refusal))
            return
        }
        let index = enroll(arrival, identity: identity, method: arrival.method.index)
        calls.records[index].isTargeted = true
        // No session holds it as well.
        calls.records[index].session = 0
        effects.append(.admit(calls.id(index)))
        let slot = Int(arrival.target.slot)
        if goesAtOnce(to: slot) {
            send(index, to: slot, &effects)
        } else {
            pin(index, to: slot)
        }
    }

    /// An operator's `drain` does not refuse it: a pool can be warmed before callers are let in again.
    private func targetRefusal(_ arrival: Arrival, identity: UInt16) -> Refusal? {
        if shuttingDown { return refuse(.draining) }
        guard let slot = live(arrival.target), isServing(slot) else { return refuse(.sessionLost) }
        if circuit != .closed { return refuse(.unavailable, retryAfter: max(circuitUntil.since(now), 1_000_000)) }
        if goesAtOnce(to: slot) && !calls.isFull { return nil }
        let bytes = UInt64(arrival.bodyBytes)
        if queue.count + pinnedCalls >= policy.maximumQueuedCalls || calls.isFull { return refuse(.queueFull, retryAfter: 1_000_000) }
        let isTooMuch = queue.bytes &+ bytes > policy.maximumQueuedBytes || queue.bytes(of: identity) &+ bytes > policy.maximumQueuedBytesPerIdentity
        if isTooMuch { return refuse(.bytesFull, retryAfter: 1_000_000) }
        return nil
    }

    private func goesAtOnce(to slot: Int) -> Bool { workers[slot].pinnedHead == CallRecord.noLink && maySend && hasRoom(slot) }

    /// Taken back, or refused unrun: to the front of its worker's, if that still serves.
    mutating func returnToTarget(_ index: Int, _ effects: inout EffectBuffer) {
        let slot = Int(calls.records[index].slot)
        if isServing(slot) { pin(index, to: slot, atFront: true) } else { finish(index, .sessionLost, &effects) }
    }
}
