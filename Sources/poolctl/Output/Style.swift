import Glibc

/// What a piece of text says about a state: the only thing that colours are used for.
enum Tone {
    case plain, good, warning, bad, faint

    var code: String {
        switch self {
        case .plain: return ""
        case .good: return "\u{1B}[32m"
        case .warning: return "\u{1B}[33m"
        case .bad: return "\u{1B}[31m"
        case .faint: return "\u{1B}[2m"
        }
    }

    /// Of a health, a phase, a circuit or a severity, as poold names them.
    static func of(_ state: String) -> Tone {
        switch state {
        case "ready", "closed", "ok", "warm", "live", "added": return .good
        case "starting", "degraded", "draining", "spawning", "terminating", "halfOpen", "warning", "warn", "notice", "warming", "recycle", "revoking":
            return .warning
        case "unavailable", "stopped", "open", "failed", "fail", "killing", "error", "critical", "removed", "restart": return .bad
        case "debug", "trace", "off", "gone", "waiting": return .faint
        default: return .plain
        }
    }
}

/// What the reader can show.
struct Style {
    var colours: Bool
    /// Columns; nil: a pipe, where nothing is cut.
    var width: Int?
    var height: Int?
    var isTerminal: Bool

    static func detect(_ colour: ColourChoice) -> Style {
        let isTerminal = isatty(1) == 1
        let colours: Bool
        switch colour {
        case .always: colours = true
        case .never: colours = false
        case .auto:
            let refused = getenv("NO_COLOR").map { $0.pointee != 0 } ?? false
            let isDumb = getenv("TERM").map { strcmp($0, "dumb") == 0 } ?? false
            colours = isTerminal && !refused && !isDumb
        }
        var size = winsize()
        let isSized = isTerminal && ioctl(1, UInt(TIOCGWINSZ), &size) == 0
        var width: Int? = isTerminal ? 80 : nil
        if isSized && size.ws_col > 0 { width = Int(size.ws_col) }
        if let named = getenv("COLUMNS"), let columns = Int(String(cString: named)), columns > 0 { width = columns }
        return Style(colours: colours, width: width, height: isSized && size.ws_row > 0 ? Int(size.ws_row) : nil, isTerminal: isTerminal)
    }

    func paint(_ text: String, _ tone: Tone) -> String { colours && tone != .plain ? tone.code + text + "\u{1B}[0m" : text }
}

enum ColourChoice: String, CaseIterable { case auto, always, never }
