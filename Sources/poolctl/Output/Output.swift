import Glibc

/// Standard output and error, written at once: nothing waits in a buffer when a pipe's reader or a terminal looks.
enum Output {
    /// Writes text and a line break.
    static func line(_ text: String) { write(text + "\n") }

    static func write(_ text: String) {
        var text = text
        text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
    }

    /// Writes all bytes or ends the program: quietly where the reader has gone (`poolctl … | head`), with a message where the disk is full.
    static func write(_ bytes: UnsafeRawBufferPointer) {
        var at = 0
        while at < bytes.count {
            let written = Glibc.write(1, bytes.baseAddress! + at, bytes.count - at)
            if written > 0 {
                at += written
            } else if errno == EAGAIN {
                var wait = pollfd(fd: 1, events: Int16(POLLOUT), revents: 0)
                _ = poll(&wait, 1, -1)
            } else if errno == EPIPE {
                exit(128 + SIGPIPE)
            } else if errno != EINTR {
                complain("poolctl: cannot write the output: \(String(cString: strerror(errno)))")
                exit(ExitStatus.other.rawValue)
            }
        }
    }
}

/// A line on standard error.
func complain(_ text: String) {
    var line = text.hasSuffix("\n") ? text : text + "\n"
    line.withUTF8 { _ = write(2, $0.baseAddress, $0.count) }
}
