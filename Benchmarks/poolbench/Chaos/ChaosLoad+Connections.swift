import CPoold
import Glibc
import PoolWire

extension ChaosLoad {
    /// Connects all, and waits until they are welcomed and know every method.
    func start() throws {
        let limit = cpoold_now() + 60_000_000_000
        while !connections.allSatisfy({ $0.isReady && $0.numbers.filter { $0 > 0 }.count >= Self.names.count - 1 }) {
            for index in connections.indices where connections[index].descriptor < 0 { connect(index) }
            poll(50_000_000)
            guard cpoold_now() < limit else { throw LoadError(description: "poold did not announce every method within 60 s") }
        }
    }

    func connect(_ index: Int) {
        let descriptor = cpoold_connect(socket, false)
        guard descriptor >= 0 else {
            // EAGAIN: a flood fills the listen queue.
            connections[index].retryAt = cpoold_now() + 20_000_000
            if errno != EAGAIN { board.violation("cannot connect: \(String(cString: strerror(errno)))") }
            return
        }
        connections[index] = ChaosConnection(descriptor: descriptor, numbers: Array(repeating: 0, count: Self.names.count))
        _ = cpoold_epoll_control(epoll, EPOLL_CTL_ADD, descriptor, EPOLLIN.rawValue, UInt64(index))
        frame.removeAll(keepingCapacity: true)
        frame.appendFrame(Header(.hello), body: Hello(name: "poolbench chaos").encoded)
        write(index)
    }

    /// Closes our side: what was open on it ends here.
    func disconnect(_ index: Int) {
        guard connections[index].descriptor >= 0 else { return }
        close(connections[index].descriptor)
        connections[index] = ChaosConnection()
        for (id, call) in open where Int(call.connection) == index {
            tally.closed += 1
            tally.pools[call.pool.rawValue].closed += 1
            open[id] = nil
        }
    }

    /// Sends `frame`.
    func write(_ index: Int) {
        guard connections[index].descriptor >= 0 else { return }
        guard connections[index].unsent.isEmpty else {
            connections[index].unsent.append(contentsOf: frame)
            return
        }
        let written = frame.withUnsafeBytes { send(connections[index].descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        guard written < frame.count else { return }
        connections[index].unsent = Array(frame[max(0, written)...])
        connections[index].sent = 0
        _ = cpoold_epoll_control(epoll, EPOLL_CTL_MOD, connections[index].descriptor, EPOLLIN.rawValue | EPOLLOUT.rawValue, UInt64(index))
    }

    private func writeRest(_ index: Int) {
        guard connections[index].descriptor >= 0 else { return }
        let at = connections[index].sent
        let written = connections[index].unsent.withUnsafeBytes {
            send(connections[index].descriptor, $0.baseAddress! + at, $0.count - at, Int32(MSG_NOSIGNAL))
        }
        if written > 0 { connections[index].sent += written }
        guard connections[index].sent == connections[index].unsent.count else { return }
        connections[index].unsent = []
        connections[index].sent = 0
        _ = cpoold_epoll_control(epoll, EPOLL_CTL_MOD, connections[index].descriptor, EPOLLIN.rawValue, UInt64(index))
    }

    func poll(_ timeout: Int64) {
        withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 64) { events in
            let count = cpoold_epoll_wait(epoll, events.baseAddress, 64, timeout)
            guard count > 0 else { return }
            for at in 0..<Int(count) {
                let index = Int(cpoold_epoll_data(events.baseAddress! + at))
                if events[at].events & EPOLLOUT.rawValue != 0 { writeRest(index) }
                if events[at].events & (EPOLLIN.rawValue | EPOLLHUP.rawValue) != 0 { receive(index) }
            }
        }
    }

    private func receive(_ index: Int) {
        guard connections[index].descriptor >= 0 else { return }
        let count = read(connections[index].descriptor, scratch, 1 << 18)
        guard count > 0 else {
            if count < 0 && errno == EAGAIN { return }
            board.violation("poold closed connection \(index), which had done nothing wrong")
            disconnect(index)
            return
        }
        let now = cpoold_now()
        if connections[index].left.isEmpty {
            let used = take(index, UnsafeRawPointer(scratch), count, now)
            if used < count && connections[index].descriptor >= 0 {
                connections[index].left = Array(UnsafeRawBufferPointer(start: scratch + used, count: count - used))
            }
        } else {
            var all = connections[index].left
            connections[index].left = []
            all.append(contentsOf: UnsafeRawBufferPointer(start: scratch, count: count))
            let used = all.withUnsafeBytes { take(index, $0.baseAddress!, $0.count, now) }
            guard connections[index].descriptor >= 0 else { return }
            // Anew: the room of a body of 4 MiB would stay with each connection for good.
            connections[index].left = Array(all[used...])
        }
    }

    private func take(_ index: Int, _ bytes: UnsafeRawPointer, _ count: Int, _ now: UInt64) -> Int {
        var at = 0
        while at < count && connections[index].descriptor >= 0 {
            let scanned = FrameScanner.next(bytes + at, count: count - at, limit: 1 << 30)
            guard case .frame(let header) = scanned else {
                if case .fault(let fault) = scanned { board.violation("poold sent a bad frame: \(fault.text)") }
                return at
            }
            let body = UnsafeRawBufferPointer(start: bytes + at + Header.size, count: header.bodyLength)
            at += header.frameLength
            switch FrameType(rawValue: header.type) {
            case .result, .error: ended(index, header, body, now)
            case .welcome:
                guard let welcome = try? Welcome(reading: body) else {
                    board.violation("poold sent a WELCOME that cannot be read")
                    continue
                }
                learn(index, welcome.methods)
                connections[index].isReady = true
            case .methods:
                if let methods = try? MethodEntry.readList(body) { learn(index, methods) } else { board.violation("poold sent METHODS that cannot be read") }
            case .pong: if connections[index].isLeaving { disconnect(index) }
            case .drain: continue
            case .hello, .call, .chunk, .cancel, .window, .release, .ping, .control, nil:
                board.violation("poold sent frame type \(header.type) to a client")
            }
        }
        return at
    }

    private func learn(_ index: Int, _ methods: [MethodEntry]) {
        for method in methods {
            guard let place = Self.names.firstIndex(of: method.name) else { continue }
            let isWithdrawn = method.flags & 1 != 0
            if !isWithdrawn {
                connections[index].numbers[place] = method.number
            } else if connections[index].numbers[place] == method.number {
                connections[index].numbers[place] = 0
            }
        }
    }
}
