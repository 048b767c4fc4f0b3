import Glibc

/// A descriptor of the log, written only as far as it takes bytes: whoever reads the log slowly or not at all, a disk that is
/// full and a pipe that broke hold up no call. What could not be written waits, up to a limit, for the next line's attempt.
package struct LogOutput: Sendable {
    /// Bytes of lines that wait; what comes then is dropped and counted.
    package static let maximumWaiting = 1 << 20
    /// A pipe that polls as writable takes this many bytes without blocking (pipe(7)).
    private static let piece = Int(PIPE_BUF)

    private let descriptor: Int32
    private var waiting: [UInt8] = []
    /// Of `waiting`, written already.
    private var start = 0
    package private(set) var dropped = 0
    /// Why the last attempt failed; 0: the reader was slow.
    package private(set) var lastError: Int32 = 0

    package init(descriptor: Int32) { self.descriptor = descriptor }

    /// `droppedLine` makes the line that says how many were dropped, given their number and an errno.
    package mutating func write(_ line: String, droppedLine: (Int, Int32) -> String) {
        drain()
        if dropped > 0 && waiting.count - start < Self.maximumWaiting / 2 {
            waiting += Array(droppedLine(dropped, lastError).utf8)
            dropped = 0
            lastError = 0
        }
        guard waiting.count - start + line.utf8.count <= Self.maximumWaiting else {
            dropped += 1
            return
        }
        waiting += Array(line.utf8)
        drain()
    }

    private mutating func drain() {
        while start < waiting.count {
            var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            guard poll(&ready, 1, 0) == 1 else { break }
            let count = min(Self.piece, waiting.count - start)
            let written = waiting.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + start, count) }
            guard written > 0 else {
                if written < 0 && errno != EAGAIN && errno != EINTR { lastError = errno }
                break
            }
            start += written
        }
        if start == waiting.count {
            waiting.removeAll(keepingCapacity: waiting.capacity <= 1 << 16)
            start = 0
        } else if start > Self.maximumWaiting {
            waiting.removeFirst(start)
            start = 0
        }
    }
}
