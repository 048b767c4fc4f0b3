import PoolConfig

/// What a worker is told of the pool's warming commands: POOLD_WARM, PROTOCOL.md section 7.
enum WarmEnvironment {
    static let name = "POOLD_WARM"
    /// The worker library's own method that runs the commands again.
    static let methodNumber: UInt16 = 65_535

    /// `POOLD_WARM={"timeout": …, "commands": […]}`; nil without commands.
    static func variable(_ configuration: PoolConfiguration) -> String? {
        guard !configuration.warm.isEmpty else { return nil }
        let commands = configuration.warm.map { command in
            switch command {
            case .call(let method, let arguments): return "{\"call\":\(quoted(method)),\"arguments\":\(quoted(arguments))}"
            case .module(let name): return "{\"import\":\(quoted(name))}"
            case .script(let path): return "{\"script\":\(quoted(path))}"
            }
        }
        let seconds = Double(configuration.warmCommandTimeout) / 1e9
        return "\(name)={\"timeout\":\(seconds),\"commands\":[\(commands.joined(separator: ","))]}"
    }

    /// A JSON string.
    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 0x20: result += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
