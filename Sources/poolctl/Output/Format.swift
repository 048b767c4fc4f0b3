import Glibc

/// Numbers as people read them.
enum Format {
    /// 850ns, 12.3µs, 4.56ms, 7.89s, 3m20s, 5h12m, 3d4h
    static func span(_ nanoseconds: UInt64) -> String {
        let value = Double(nanoseconds)
        if nanoseconds == 0 { return "0ms" }
        if value < 999.5 { return "\(nanoseconds)ns" }
        if value < 999.5e3 { return threeDigits(value / 1e3) + "µs" }
        if value < 999.5e6 { return threeDigits(value / 1e6) + "ms" }
        if value < 59.95e9 { return threeDigits(value / 1e9) + "s" }
        let whole = Int(nanoseconds / 1_000_000_000)
        if whole < 3600 { return "\(max(1, whole / 60))m\(whole < 60 ? 0 : whole % 60)s" }
        if whole < 86_400 { return "\(whole / 3600)h\(whole % 3600 / 60)m" }
        return "\(whole / 86_400)d\(whole % 86_400 / 3600)h"
    }

    /// Whole seconds where they suffice: how old something is.
    static func age(_ nanoseconds: UInt64) -> String {
        nanoseconds < 60_000_000_000 ? "\(nanoseconds / 1_000_000_000)s" : span(nanoseconds)
    }

    static func bytes(_ count: UInt64) -> String {
        if count < 1024 { return "\(count)B" }
        var value = Double(count) / 1024
        for unit in ["KiB", "MiB", "GiB"] {
            if value < 999.5 { return threeDigits(value) + unit }
            value /= 1024
        }
        return threeDigits(value) + "TiB"
    }

    static func percent(_ share: Double) -> String { fixed(share * 100, 1) + "%" }

    /// A rate or a mean: three digits that count.
    static func threeDigits(_ value: Double) -> String {
        value >= 99.95 ? fixed(value, 0) : value >= 9.995 ? fixed(value, 1) : fixed(value, 2)
    }

    static func fixed(_ value: Double, _ digits: Int) -> String {
        guard value.isFinite else { return "–" }
        var buffer = [CChar](repeating: 0, count: 64)
        let count = withVaList([value]) { vsnprintf(&buffer, buffer.count, "%.\(digits)f", $0) }
        return String(decoding: buffer[..<max(0, min(Int(count), 63))].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Local time of nanoseconds since 1970.
    static func clock(_ nanoseconds: UInt64) -> String {
        var seconds = time_t(nanoseconds / 1_000_000_000)
        var parts = tm()
        localtime_r(&seconds, &parts)
        var buffer = [CChar](repeating: 0, count: 64)
        let count = strftime(&buffer, buffer.count, "%Y-%m-%d %H:%M:%S", &parts)
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    static func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }

    static func pad(_ text: String, _ width: Int) -> String { text.count >= width ? text + " " : text + String(repeating: " ", count: width - text.count) }

    /// What a worker wrote, made harmless for a terminal: control characters are spelled out, tabs become spaces.
    static func visible(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { ($0.value < 0x20 && $0 != "\n") || (0x7F...0x9F).contains($0.value) }) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x0A: result.unicodeScalars.append(scalar)
            case 0x09: result += "    "
            case 0x0D: continue
            case 0..<0x20, 0x7F...0x9F: result += "\\x" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    static func lines(_ text: String, indent: Int) -> [String] {
        let margin = String(repeating: " ", count: indent)
        var lines = visible(text).split(separator: "\n", omittingEmptySubsequences: false).map { margin + $0 }
        while let last = lines.last, last.allSatisfy({ $0 == " " }) { lines.removeLast() }
        return lines
    }

    /// Words in lines of at most `width`; a word that is longer stays whole.
    static func wrap(_ text: String, _ width: Int, indent: Int = 0) -> [String] {
        let margin = String(repeating: " ", count: indent)
        var lines: [String] = []
        for paragraph in visible(text).split(separator: "\n", omittingEmptySubsequences: false) {
            var line = ""
            for word in paragraph.split(separator: " ") {
                if !line.isEmpty && indent + line.count + 1 + word.count > width {
                    lines.append(margin + line)
                    line = ""
                }
                line += (line.isEmpty ? "" : " ") + word
            }
            lines.append(margin + line)
        }
        return lines
    }
}
