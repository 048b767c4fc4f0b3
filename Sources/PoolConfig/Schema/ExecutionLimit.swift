import Glibc

/// What execve(2) takes: with a longer value no worker can ever start.
enum ExecutionLimit {
    /// MAX_ARG_STRLEN, 32 pages of 4 KiB, without the NUL: of one argument, and of one variable with its name.
    static let maximumBytes = 131_071

    static let allowed = "at most \(maximumBytes), as the kernel limits an argument or a variable of a program"

    /// PYTHONPATH=…, with what poold puts behind: its own package, and the path that it was started with.
    static func bytesOfPythonPath(_ folders: [String]) -> Int {
        let inherited = getenv("PYTHONPATH").map { String(cString: $0) }
        let all = folders + [Paths.packageFolder(), inherited].compactMap { $0 }
        return "PYTHONPATH=".utf8.count + all.reduce(0) { $0 + $1.utf8.count } + max(0, all.count - 1)
    }

    /// POOLD_WARM={"timeout": …, "commands": […]} (PROTOCOL.md, section 7), as if it had the longest timeout.
    static func bytesOfWarming(_ commands: [WarmCommand]) -> Int {
        guard !commands.isEmpty else { return 0 }
        let longestNumber = 24
        return commands.reduce("POOLD_WARM={\"timeout\":,\"commands\":[]}".utf8.count + longestNumber) { bytes, command in
            switch command {
            case .call(let method, let arguments): bytes + "{\"call\":,\"arguments\":},".utf8.count + json(method) + json(arguments)
            case .module(let name): bytes + "{\"import\":},".utf8.count + json(name)
            case .script(let path): bytes + "{\"script\":},".utf8.count + json(path)
            }
        }
    }

    /// Of a JSON string.
    private static func json(_ text: String) -> Int {
        text.utf8.reduce(2) { bytes, byte in
            switch byte {
            case 0x22, 0x5C: bytes + 2
            case 0..<0x20: bytes + 6
            default: bytes + 1
            }
        }
    }
}

extension ReadContext {
    /// Whether a value fits into what execve takes; if not, that is said, by default at the key's line.
    mutating func fits(_ what: String, bytes: Int, at other: Place? = nil, hint: String = "") -> Bool {
        guard bytes > ExecutionLimit.maximumBytes else { return true }
        problems.add(other ?? place, key, found: "\(bytes) bytes \(what)", allowed: ExecutionLimit.allowed, hint: hint)
        return false
    }
}
