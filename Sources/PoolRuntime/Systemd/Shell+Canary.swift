import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

/// The probe behind the watchdog: a call over a socket, through the frame scanner and the machine, to a worker and back.
extension Shell {
    /// Makes the in-process caller, if the configuration has the reserved pool.
    mutating func startCanary(period: UInt64) {
        for pool in 0..<poolCount where pools[pool].configuration.isReserved && !pools[pool].isRemoved { service.canary.pool = pool }
        guard service.canary.pool >= 0 else { return }
        service.canary.interval = period / 4
        service.canary.budget = period / 8
        service.canary.nextAt = now
    }

    /// A new pair of sockets, where there is none or the loop closed its end.
    private mutating func connectCanary() -> Bool {
        if service.canary.socket >= 0 { return true }
        var pair: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &pair) == 0 else { return false }
        // Accepted by nobody, it is of poold's own class (`AccessTable`), which alone may call the reserved pool.
        guard addConnection(pair[1], .client, isOwn: true) != nil else {
            for descriptor in pair { close(descriptor) }
            return false
        }
        service.canary.socket = pair[0]
        service.canary.input = []
        watch(pair[0], .canary)
        return true
    }

    mutating func canaryTurn() {
        if service.canary.isWaiting { probeFailed("no answer, not even an error: the call is lost") }
        let canary = service.canary
        guard let number = methodNumbers["\(CanaryPool.name).\(CanaryPool.method)"] else {
            // It has not been ready yet; the pool's own state says why.
            service.canary.nextAt = now + canary.retryAfter
            return
        }
        guard connectCanary() else { return probeFailed("no socket for it: \(text(of: errno))") }
        service.canary.probe += 1
        service.canary.sentAt = now
        service.canary.isWaiting = true
        service.canary.nextAt = now + 2 * canary.budget + canary.interval / 4
        let header = Header(.call, flags: FrameFlags.end, code: number, id: service.canary.probe, time: canary.budget, bodyLength: 8)
        var frame = [UInt8](repeating: 0, count: Header.size)
        frame.withUnsafeMutableBytes { header.write(to: $0.baseAddress!) }
        frame.appendBigEndian(service.canary.probe)
        let sent = frame.withUnsafeBytes { send(service.canary.socket, $0.baseAddress!, $0.count, Int32(MSG_NOSIGNAL)) }
        if sent != frame.count { probeFailed("the loop does not read its socket: \(text(of: errno))") }
    }

    /// Answers of the loop to the in-process caller.
    mutating func readCanary() {
        let count = recv(service.canary.socket, scratch, Self.scratchBytes, 0)
        if count < 0 && (errno == EAGAIN || errno == EINTR) { return }
        guard count > 0, service.canary.input.count + count <= CanaryClient.maximumInput else {
            close(service.canary.socket)
            service.canary.socket = -1
            return
        }
        service.canary.input.append(contentsOf: UnsafeRawBufferPointer(start: scratch, count: count))
        let input = service.canary.input
        let used = input.withUnsafeBytes { bytes in
            var at = 0
            while case .frame(let header) = FrameScanner.next(bytes.baseAddress! + at, count: bytes.count - at, limit: CanaryClient.maximumInput) {
                let body = UnsafeRawBufferPointer(rebasing: bytes[(at + Header.size)..<(at + header.frameLength)])
                at += header.frameLength
                answered(header, body)
                if at == bytes.count { break }
            }
            return at
        }
        service.canary.input.removeFirst(used)
    }

    private mutating func answered(_ header: Header, _ body: UnsafeRawBufferPointer) {
        guard service.canary.isWaiting, header.id == service.canary.probe else { return }
        guard header.type == FrameType.result.rawValue, body.count == 8, UInt64(bigEndian: body.loadUnaligned(as: UInt64.self)) == header.id else {
            return probeFailed(String(decoding: body.prefix(400), as: UTF8.self))
        }
        if service.canary.failures > 0 { log.notice("canary answers again", metadata: ["probes_failed": "\(service.canary.failures)"]) }
        service.canary.isWaiting = false
        service.canary.hasAnswered = true
        service.canary.failures = 0
        service.canary.nextAt = service.canary.sentAt + service.canary.interval
        service.nextAt = min(service.nextAt, service.canary.nextAt)
        service.manager?.feedWatchdog()
    }

    private mutating func probeFailed(_ reason: String) {
        service.canary.isWaiting = false
        service.canary.failures += 1
        service.canary.nextAt = now + service.canary.retryAfter
        service.nextAt = min(service.nextAt, service.canary.nextAt)
        guard service.canary.failures == 1, !isStopping else { return }
        log.warning("canary did not answer; its worker is replaced if it hangs", metadata: ["reason": "\(reason)"])
    }
}
