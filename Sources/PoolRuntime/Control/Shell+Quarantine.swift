import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolProtocol
import PoolWire
import SwiftProtobuf

extension Shell {
    /// Metadata above this is not searched for an idempotency key.
    private static let maximumMetadata = 64 << 10

    // MARK: - What a body is known by

    /// Of the method and the payload, or over the method and the idempotency key where metadata carries one. Metadata
    /// itself does not count: a trace id differs each time. 0 is kept for "not hashed".
    static func hash(method: UInt16, flags: UInt8, _ body: UnsafeRawBufferPointer) -> UInt64 {
        guard flags & FrameFlags.meta != 0, body.count >= 4 else { return BodyHash.of(method: method, body) }
        let length = Int(UInt32(bigEndian: body.loadUnaligned(as: UInt32.self)))
        guard length <= body.count - 4 else { return BodyHash.of(method: method, body) }
        if length <= maximumMetadata {
            // Metadata that cannot be read is the application's affair; it names no key.
            let metadata = try? Poold_V1_Meta(serializedBytes: Array(body[4..<4 + length]))
            if var key = metadata?.idempotencyKey, !key.isEmpty {
                // In a range of its own: a key must not be taken for a body.
                return key.withUTF8 { ~BodyHash.of(method: method, UnsafeRawBufferPointer($0)) | 1 }
            }
        }
        return BodyHash.of(method: method, UnsafeRawBufferPointer(rebasing: body[(4 + length)...]))
    }

    // MARK: - What a refused caller is told

    /// The history of the body at hand: the detail of the `quarantined` error.
    func quarantineHistory(_ pool: Int) -> String {
        guard let suspect = pools[pool].machine.quarantine(now: Instant(nanoseconds: now)).first(where: { $0.hash == arrivalHash }) else { return "" }
        var text = "hash \(String(suspect.hash, radix: 16)): \(suspect.deaths) workers died with it, the last \(suspect.sinceLast / 1_000_000_000) s ago"
        if let death = pools[pool].deaths.last(blamedOn: suspect.hash) {
            text += "\nthe last: worker \(death.worker.slot).\(death.worker.generation), pid \(death.pid), \(death.exitText) after \(death.ran / 1_000_000) ms"
        }
        return text + "\nrefused for \(suspect.remaining / 1_000_000_000) s more; an operator can clear it: poolctl quarantine --help"
    }

    // MARK: - The operator asks

    func quarantineList(_ body: [UInt8]) throws -> [UInt8] {
        var message = Poold_V1_QuarantineList()
        for pool in try filtered(Poold_V1_PoolFilter(serializedBytes: body).pool) {
            for suspect in pools[pool].machine.quarantine(now: Instant(nanoseconds: now)) {
                var line = Poold_V1_QuarantinedBody()
                line.pool = pools[pool].configuration.name
                line.method = methodName(pool, suspect.method)
                line.hash = String(suspect.hash, radix: 16)
                line.deaths = UInt32(suspect.deaths)
                line.refused = suspect.isRefused
                line.lastDeathNanosecondsAgo = suspect.sinceLast
                line.remainingNanoseconds = suspect.remaining
                message.bodies.append(line)
            }
        }
        return try message.serializedBytes()
    }

    mutating func clearQuarantine(_ body: [UInt8]) throws -> [UInt8] {
        let request = try Poold_V1_QuarantineRequest(serializedBytes: body)
        let pool = try find(request.pool)
        let known = pools[pool].machine.quarantine(now: Instant(nanoseconds: now))
        guard !request.hash.isEmpty else {
            handle(pool, .clearQuarantine(hash: 0))
            journal.notice("quarantine cleared by an operator", metadata: ["pool": "\(request.pool)", "bodies": "\(known.count)"])
            return try done("nothing is in quarantine in pool \(request.pool) any more", affected: known.count)
        }
        guard let hash = UInt64(request.hash, radix: 16), hash != 0 else {
            throw ControlFault(status: .badArguments, text: "\(request.hash) is not a hash: 1 to 16 hexadecimal digits, as poolctl quarantine lists them")
        }
        guard known.contains(where: { $0.hash == hash }) else {
            throw ControlFault(status: .badArguments, text: "pool \(request.pool) has no quarantined body \(request.hash); see poolctl quarantine")
        }
        handle(pool, .clearQuarantine(hash: hash))
        journal.notice("quarantine cleared by an operator", metadata: ["pool": "\(request.pool)", "hash": "\(request.hash)"])
        return try done("\(request.hash) of pool \(request.pool) is taken again", affected: 1)
    }
}
