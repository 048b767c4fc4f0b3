/// JSON with line breaks, for a terminal. Works on the text: no value is read, so none can change.
enum PrettyJSON {
    static let widest = 72

    /// The same JSON, indented by two; short arrays and objects stay on a line.
    static func format(_ text: String) -> String {
        var scalars = Array(text.utf8)
        if scalars.last == 0x0A { scalars.removeLast() }
        if scalars.count <= widest { return String(decoding: scalars, as: UTF8.self) }
        var output: [UInt8] = []
        var depth = 0
        var index = 0
        func breakLine() {
            output.append(0x0A)
            output.append(contentsOf: repeatElement(0x20, count: 2 * depth))
        }
        while index < scalars.count {
            let byte = scalars[index]
            switch byte {
            case UInt8(ascii: "\""):
                let end = endOfString(scalars, index)
                output.append(contentsOf: scalars[index..<end])
                index = end
                continue
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                if let end = shortEnd(scalars, index) {
                    output.append(contentsOf: scalars[index...end])
                    index = end
                } else {
                    output.append(byte)
                    depth += 1
                    breakLine()
                }
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                depth = max(0, depth - 1)
                breakLine()
                output.append(byte)
            case UInt8(ascii: ","):
                output.append(byte)
                breakLine()
            case UInt8(ascii: ":"):
                output.append(contentsOf: [byte, 0x20])
            case 0x20, 0x09, 0x0A, 0x0D: break
            default: output.append(byte)
            }
            index += 1
        }
        return String(decoding: output, as: UTF8.self)
    }

    /// Behind the closing quote of a string that begins at `start`.
    private static func endOfString(_ text: [UInt8], _ start: Int) -> Int {
        var index = start + 1
        while index < text.count {
            if text[index] == UInt8(ascii: "\\") {
                index += 2
            } else if text[index] == UInt8(ascii: "\"") {
                return index + 1
            } else {
                index += 1
            }
        }
        return text.count
    }

    /// Where the array or object ends, if that is within the width.
    private static func shortEnd(_ text: [UInt8], _ start: Int) -> Int? {
        var depth = 0
        var index = start
        while index < text.count, index - start <= widest {
            switch text[index] {
            case UInt8(ascii: "\""):
                index = endOfString(text, index)
                continue
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                depth -= 1
                if depth == 0 { return index }
            default: break
            }
            index += 1
        }
        return nil
    }
}
