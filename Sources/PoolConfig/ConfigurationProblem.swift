/// A place that a value was read from: a line of a file, or an option of the command line.
package struct Place: Sendable, Equatable {
    package var file: String
    /// From 1; 0: the whole file.
    package var line: Int
    /// From 1, in characters; 0: the whole line.
    package var column: Int
    /// `file` is the name of an option.
    package var isOption: Bool

    package init(file: String, line: Int = 0, column: Int = 0, isOption: Bool = false) {
        self.file = file
        self.line = line
        self.column = column
        self.isOption = isOption
    }

    package static func option(_ name: String) -> Place { Place(file: name, isOption: true) }

    /// FILE:LINE, or FILE.
    package var text: String { line > 0 ? "\(file):\(line)" : file }
    /// As `config show` names it.
    package var origin: String { isOption ? "option" : text }
}

/// Something in a configuration that poold does not take.
package struct ConfigurationProblem: Error, Sendable, Equatable, CustomStringConvertible {
    package var place: Place
    /// Dotted path of the key; empty: the file as a whole.
    package var key: String
    /// What stands there.
    package var found: String
    /// What may stand there; empty: nothing else can be said.
    package var allowed: String
    /// What to do about it; may be empty.
    package var hint: String

    package init(_ place: Place, key: String = "", found: String, allowed: String = "", hint: String = "") {
        self.place = place
        self.key = key
        self.found = found
        self.allowed = allowed
        self.hint = hint
    }

    /// One line: `poold.yaml:12: pools.text.workers: found "many", allowed: a whole number from 0 to 448`
    package var description: String {
        var line = place.text + ": "
        // A key is whatever stands in the file: it must not break the line, nor fill it.
        let isPlain = key.utf8.count <= 200 && !key.unicodeScalars.contains { $0.properties.generalCategory == .control }
        if !key.isEmpty { line += (isPlain ? key : quoted(key)) + ": " }
        line += "found " + found
        if !allowed.isEmpty { line += ", allowed: " + allowed }
        if !hint.isEmpty { line += "; " + hint }
        return line
    }
}

/// Every problem of a configuration, in the order of its lines.
package struct ProblemList: Sendable {
    /// A file of nonsense has no more to say after so many.
    static let maximum = 200
    package private(set) var problems: [ConfigurationProblem] = []

    mutating func add(_ place: Place, _ key: String = "", found: String, allowed: String = "", hint: String = "") {
        guard problems.count < Self.maximum else { return }
        problems.append(ConfigurationProblem(place, key: key, found: found, allowed: allowed, hint: hint))
    }

    /// By line within each file, files as they were read.
    var sorted: [ConfigurationProblem] {
        var files: [String: Int] = [:]
        for problem in problems where files[problem.place.file] == nil { files[problem.place.file] = files.count }
        return problems.enumerated().sorted { left, right in
            let a = (files[left.element.place.file] ?? 0, left.element.place.line, left.offset)
            let b = (files[right.element.place.file] ?? 0, right.element.place.line, right.offset)
            return a < b
        }.map(\.element)
    }
}

/// Text in quotes, on one line and of a bounded length.
func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars.prefix(60) {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case "\t": result += "\\t"
        case _ where scalar.value < 0x20 || scalar.value == 0x7F: result += "\\x" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result + (text.unicodeScalars.count > 60 ? "…\"" : "\"")
}
