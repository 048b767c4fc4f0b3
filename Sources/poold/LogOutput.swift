import Glibc
import Synchronization

/// stderr, written only as far as it takes bytes: whoever reads the log slowly, or not at all, does not hold up calls.
final class LogOutput: Sendable {
    static let shared = LogOutput()
    /// Bytes of lines that wait for the reader; what comes then is dropped and counted.
    static let maximumWaiting = 1 << 20
    /// A pipe that polls as writable takes this many bytes without blocking (pipe(7)).
    private static let piece = Int(PIPE_BUF)

    private struct State {
        var waiting: [UInt8] = []
        var dropped = 0
    }
    private let state = Mutex(State())

    func write(_ line: String) {
        state.withLock { state in
            Self.drain(&state)
            if state.dropped > 0 && state.waiting.isEmpty {
                state.waiting += Array("\(state.dropped) lines of the log were dropped: nobody read them\n".utf8)
                state.dropped = 0
            }
            guard state.waiting.count + line.utf8.count <= Self.maximumWaiting else {
                state.dropped += 1
                return
            }
            state.waiting += Array(line.utf8)
            Self.drain(&state)
        }
    }

    private static func drain(_ state: inout State) {
        var start = 0
        while start < state.waiting.count {
            var ready = pollfd(fd: 2, events: Int16(POLLOUT), revents: 0)
            guard poll(&ready, 1, 0) == 1, ready.revents & Int16(POLLOUT) != 0 else { break }
            let count = min(piece, state.waiting.count - start)
            let written = state.waiting.withUnsafeBytes { Glibc.write(2, $0.baseAddress! + start, count) }
            guard written > 0 else { break }
            start += written
        }
        state.waiting.removeFirst(start)
    }
}
