package import Logging
package import PoolConfig

/// One event of the log as a line of bytes.
package struct LogLine {
    package var format: LogConfiguration.Format
    /// Read by journald: a priority goes in front, and the time is the journal's.
    package var isJournal: Bool
    /// RFC 3339, UTC; not used where the journal keeps the time.
    package var time: String
    package var level: Logger.Level
    package var message: String
    package var metadata: Logger.Metadata

    package init(format: LogConfiguration.Format, isJournal: Bool, time: String, level: Logger.Level, message: String, metadata: Logger.Metadata) {
        self.format = format
        self.isJournal = isJournal
        self.time = time
        self.level = level
        self.message = message
        self.metadata = metadata
    }

    /// Ends in a line break, and has no other.
    package var text: String {
        var line = isJournal ? "<\(Self.priority(level))>" : ""
        switch format {
        case .text: appendText(&line)
        case .json: appendJSON(&line)
        }
        return line + "\n"
    }

    /// syslog(3), as sd-daemon(3) wants it in front of a line.
    private static func priority(_ level: Logger.Level) -> Int {
        switch level {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }

    private var pairs: [(key: String, value: Logger.MetadataValue)] { metadata.sorted { $0.key < $1.key } }

    // MARK: - Text

    private func appendText(_ line: inout String) {
        if !isJournal { line += time + " " }
        line += "\(level) "
        // A message is static text, but nothing may forge a line.
        if message.unicodeScalars.contains(where: Self.isControl) { line += Self.quoted(message) } else { line += message }
        for (key, value) in pairs { line += " \(key)=\(Self.quoted("\(value)"))" }
    }

    /// In quotes where a reader could not tell its end; line breaks and other control characters are shown.
    private static func quoted(_ text: String) -> String {
        guard text.isEmpty || text.unicodeScalars.contains(where: { " \"\\=".unicodeScalars.contains($0) || isControl($0) }) else { return text }
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            // Or a backslash before a quote of its own would end the value early.
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            default:
                if !isControl(scalar) {
                    result.unicodeScalars.append(scalar)
                } else {
                    result += scalar.value <= 0xFF ? "\\x" + hexadecimal(scalar.value, 2) : "\\u" + hexadecimal(scalar.value, 4)
                }
            }
        }
        return result + "\""
    }

    // MARK: - JSON

    /// One flat object: time, level, message, then the metadata, of which a key that is taken already gets a `_`.
    private func appendJSON(_ line: inout String) {
        line += "{"
        if !isJournal { line += "\"time\":\"\(time)\"," }
        line += "\"level\":\"\(level)\",\"message\":"
        Self.appendString(message, to: &line)
        for (key, value) in pairs {
            line += ","
            Self.appendString(["time", "level", "message"].contains(key) ? key + "_" : key, to: &line)
            line += ":"
            Self.appendString("\(value)", to: &line)
        }
        line += "}"
    }

    /// RFC 8259, section 7, and more than it asks for: what some terminals act upon, and where some readers of lines break.
    private static func appendString(_ text: String, to line: inout String) {
        line += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": line += "\\\""
            case "\\": line += "\\\\"
            case "\n": line += "\\n"
            case "\r": line += "\\r"
            case "\t": line += "\\t"
            default: if isControl(scalar) { line += "\\u" + hexadecimal(scalar.value, 4) } else { line.unicodeScalars.append(scalar) }
            }
        }
        line += "\""
    }

    /// C0 and C1 (terminals take U+009B for ESC [), DEL, and the separators of lines and paragraphs.
    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || (0x2028...0x2029).contains(scalar.value)
    }

    private static func hexadecimal(_ value: UInt32, _ digits: Int) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
}
