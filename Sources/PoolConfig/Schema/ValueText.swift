package import PoolCore

/// Spans as people write them: `10s`, `200ms`, `1.5h`, or a number of seconds.
package enum SpanText {
    /// Longest first, so that a span is shown in the largest unit that it fills.
    private static let units: [(name: String, nanoseconds: UInt64)] = [
        ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1),
    ]

    package static func nanoseconds(_ text: String) -> Nanoseconds? {
        let (number, unit) = Decimal.split(text)
        if unit.isEmpty { return Decimal.multiply(number, 1_000_000_000) }
        guard let factor = units.first(where: { $0.name == unit })?.nanoseconds else { return nil }
        return Decimal.multiply(number, factor)
    }

    package static func text(_ span: Nanoseconds) -> String {
        guard span > 0 else { return "0s" }
        for unit in units where span % unit.nanoseconds == 0 { return "\(span / unit.nanoseconds)\(unit.name)" }
        return "\(span)ns"
    }
}

/// Sizes: `64MiB`, `256KiB`, or a number of bytes.
package enum SizeText {
    private static let units: [(name: String, bytes: UInt64)] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)]

    package static func bytes(_ text: String) -> UInt64? {
        let (number, unit) = Decimal.split(text)
        if unit.isEmpty { return number.contains(".") ? nil : Decimal.multiply(number, 1) }
        guard let factor = units.first(where: { $0.name == unit })?.bytes else { return nil }
        return Decimal.multiply(number, factor)
    }

    package static func text(_ bytes: UInt64) -> String {
        guard bytes > 0 else { return "0B" }
        for unit in units where bytes % unit.bytes == 0 { return "\(bytes / unit.bytes)\(unit.name)" }
        return "\(bytes)B"
    }
}

/// Decimal numbers in integers: no rounding that a reader would see, no value that traps.
enum Decimal {
    /// The digits (with at most a point among them) and what follows them.
    static func split(_ text: String) -> (number: Substring, unit: Substring) {
        let end = text.utf8.firstIndex { !(0x30...0x39).contains($0) && $0 != 0x2E } ?? text.endIndex
        return (text[..<end], text[end...])
    }

    /// number × factor, rounded down; nil: it is no number, or too large.
    static func multiply(_ number: Substring, _ factor: UInt64) -> UInt64? {
        let parts = number.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count <= 2, let whole = UInt64(parts[0]) else { return nil }
        let (product, overflow) = whole.multipliedReportingOverflow(by: factor)
        guard !overflow else { return nil }
        guard parts.count == 2 else { return product }
        guard !parts[1].isEmpty, parts[1].utf8.count <= 18, let fraction = UInt64(parts[1]) else { return nil }
        var scale: UInt64 = 1
        for _ in 0..<parts[1].utf8.count { scale *= 10 }
        let wide = fraction.multipliedFullWidth(by: factor)
        let (rest, _) = scale.dividingFullWidth(wide)
        let (sum, tooLarge) = product.addingReportingOverflow(rest)
        return tooLarge ? nil : sum
    }
}

/// Values as one line of YAML, such that they read back the same.
enum FlowText {
    static func scalar(_ text: String) -> String {
        let isPlain =
            !text.isEmpty && text.utf8.first != 0x2D && text != "~" && !["null", "true", "false", "yes", "no", "on", "off"].contains(text.lowercased())
            && text.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x2F || $0 == 0x5F
            }
        return isPlain ? text : json(text)
    }

    static func list(_ items: [String]) -> String { "[" + items.joined(separator: ", ") + "]" }

    /// A JSON string, which is YAML too.
    static func json(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case _ where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value):
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
