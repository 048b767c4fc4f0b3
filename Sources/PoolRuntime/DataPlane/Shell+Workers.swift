import CPoold
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolWire

extension Shell {
    /// One whole frame of a worker.
    @inline(__always) mutating func workerFrame(_ index: Int, _ header: Header, _ body: UnsafeRawBufferPointer) {
        let pool = Int(connections[index].pool)
        let slot = Int(connections[index].slot)
        let worker = WorkerID(slot: UInt16(slot), generation: pools[pool].workers[slot].generation)
        if header.type == FrameType.result.rawValue {
            guard header.flags & (FrameFlags.end | FrameFlags.memfd) == FrameFlags.end, header.code == 0 else {
                return workerBroke(index, "a RESULT has flags 0x\(String(header.flags, radix: 16)) and code \(header.code); streams and memfds were not agreed")
            }
            replyHeader = header
            replyBody = body
            handle(pool, .workerReplied(worker, number: header.id, kind: .result, ran: header.time))
        } else {
            otherWorkerFrame(index, pool, worker, header, body)
        }
    }

    private mutating func otherWorkerFrame(_ index: Int, _ pool: Int, _ worker: WorkerID, _ header: Header, _ body: UnsafeRawBufferPointer) {
        switch FrameType(rawValue: header.type) {
        case .error where header.id == 0:
            guard header.code == Status.setupFailed.rawValue else { return workerBroke(index, "ERROR without a call and with status \(header.code)") }
            guard pools[pool].machine.listing(worker)?.wasReady != true else { return workerBroke(index, "it says that it cannot serve after it was ready") }
            // Every call that is refused for it carries this text.
            let text = Journal.bounded(String(decoding: body.prefix(65_536), as: UTF8.self), DeathRecord.maximumFailure)
            pools[pool].failure = text
            pools[pool].workers[Int(worker.slot)].failure = text
            journal.error(
                "worker cannot serve", metadata: metadata(pool, worker).merging(["reason": "\(text)"]) { $1 })
            handle(pool, .workerSetupFailed(worker))
        case .error:
            guard let status = Status(rawValue: header.code) else { return workerBroke(index, "ERROR with unknown status \(header.code)") }
            replyHeader = header
            replyBody = body
            if status == .noSuchMethod { sayMethodIsGone() }
            let kind: ReplyKind
            switch (status, header.time) {
            case (.cancelled, 0): kind = .unrunRevoked
            case (.timeoutWaiting, 0): kind = .unrunExpired
            case (.cancelled, _): kind = .interrupted
            default: kind = .error
            }
            handle(pool, .workerReplied(worker, number: header.id, kind: kind, ran: header.time))
        case .pong: handle(pool, .workerPonged(worker))
        case .hello:
            guard !connections[index].hasSpoken else { return workerBroke(index, "HELLO must be the first frame") }
            do {
                let hello = try Hello(reading: body)
                guard hello.lowestVersion <= 1, hello.highestVersion >= 1 else {
                    return workerBroke(index, "it speaks versions \(hello.lowestVersion) to \(hello.highestVersion), poold speaks 1")
                }
            } catch { return workerBroke(index, error.text) }
            connections[index].hasSpoken = true
            let window = UInt16(pools[pool].machine.policy.window)
            let welcome = Welcome(calls: window, largestBody: UInt32(configuration.largestBody), methods: []).encoded
            welcome.withUnsafeBytes { appendFrame(index, Header(.welcome), $0) }
        case .methods:
            guard connections[index].hasSpoken else { return workerBroke(index, "METHODS before HELLO") }
            // Each change takes numbers, of which there are so many and no more.
            guard pools[pool].machine.listing(worker)?.wasReady != true else { return workerBroke(index, "METHODS a second time") }
            do { learn(pool, worker, try MethodEntry.readList(body)) } catch { workerBroke(index, error.text) }
        case .result, .welcome, .call, .chunk, .cancel, .window, .release, .ping, .drain, .control, nil:
            workerBroke(index, "a worker does not send frame type \(header.type)")
        }
    }

    /// What it sends cannot be trusted any more.
    mutating func workerBroke(_ index: Int, _ text: String) {
        let pool = Int(connections[index].pool)
        let slot = Int(connections[index].slot)
        let worker = WorkerID(slot: UInt16(slot), generation: pools[pool].workers[slot].generation)
        journal.error("worker broke the protocol and is replaced", metadata: metadata(pool, worker).merging(["fault": "\(text)"]) { $1 })
        closeConnection(index)
        handle(pool, .workerBroken(worker))
    }

    mutating func workerEnded(_ index: Int) {
        let pool = Int(connections[index].pool)
        let slot = Int(connections[index].slot)
        let worker = WorkerID(slot: UInt16(slot), generation: pools[pool].workers[slot].generation)
        closeConnection(index)
        // Most often it is dying and its exit is next; who closes and lives is ended by the machine.
        reapChildren()
        guard pools[pool].workers[slot].generation == worker.generation, pools[pool].workers[slot].pid > 0 else { return }
        handle(pool, .workerClosed(worker))
    }

    func metadata(_ pool: Int, _ worker: WorkerID) -> Logger.Metadata {
        ["pool": "\(pools[pool].configuration.name)", "worker": "\(worker.slot).\(worker.generation)", "pid": "\(pools[pool].workers[Int(worker.slot)].pid)"]
    }
}
