import SwiftProtobuf

extension Message {
    /// One line of JSON by protobuf's mapping: lowerCamelCase names, 64-bit integers as strings (they keep every digit), what is 0, false or
    /// empty left out. docs/poolctl-json.md lists the names.
    func json() throws -> String {
        var options = JSONEncodingOptions()
        options.useDeterministicOrdering = true
        return try jsonString(options: options)
    }
}

/// A JSON string.
func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case "\r": result += "\\r"
        case "\t": result += "\\t"
        case _ where scalar.value < 0x20: result += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result + "\""
}
