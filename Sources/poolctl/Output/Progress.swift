import Glibc

/// How far something is, on standard error: one line rewritten in place on a terminal, a line per change in a pipe or a log.
struct Progress {
    private let isTerminal = isatty(2) == 1
    private let isSilent: Bool
    private var last = ""

    init(isSilent: Bool) { self.isSilent = isSilent }

    mutating func show(_ text: String) {
        guard !isSilent, text != last else { return }
        last = text
        if isTerminal {
            var size = winsize()
            let width = ioctl(2, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 ? Int(size.ws_col) : 80
            write("\r\u{1B}[K" + text.prefix(width - 1))
        } else {
            write(text + "\n")
        }
    }

    /// A bar of done of all.
    static func bar(_ done: Int, of all: Int, width: Int = 24) -> String {
        let filled = all == 0 ? width : min(width, done * width / all)
        return "[" + String(repeating: "#", count: filled) + String(repeating: "-", count: width - filled) + "]"
    }

    /// Leaves the terminal with an empty line to go on.
    mutating func end() {
        if isTerminal && !isSilent && !last.isEmpty { write("\r\u{1B}[K") }
        last = ""
    }

    private func write(_ text: some StringProtocol) {
        var text = String(text)
        text.withUTF8 { _ = Glibc.write(2, $0.baseAddress, $0.count) }
    }
}
