import ArgumentParser
import Glibc
import PoolClient
import PoolWire

struct Call: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "call", abstract: "Call a method and print its result.",
        usage: "poolctl call <pool.method> [<body> | --file <path>] [options]",
        discussion: """
            The body is JSON for methods with codec json (an object gives keyword
            arguments, an array positional ones) and bytes as they are for the others.
            A body of - is standard input. On a terminal JSON is laid out for reading;
            in a pipe, and with --raw, the bytes are the worker's.

            EXAMPLES
              poolctl call text.summarize '{"text": "One. Two.", "sentences": 1}'
              poolctl call vectors.normalize --file vector.f32 > unit.f32
              echo '["tea, tea and cake"]' | poolctl call text.keywords - --timeout 2s
            """)

    @Argument(help: "pool.method", completion: Names.methods) var method: String
    @Argument(help: "The body; - is standard input. Default: none.") var body: String?
    @Option(help: ArgumentHelp("Read the body from a file; - is standard input.", valueName: "path"), completion: .file()) var file: String?
    @Flag(help: "Print the result's bytes as they are, without a line break.") var raw = false
    @Option(help: ArgumentHelp("A session number, or a name that is turned into one.", valueName: "session")) var session: String?
    @Option(help: ArgumentHelp("Budget for waiting and running together, \(Span.form). Default: the pool's.", valueName: "span")) var timeout: Span?
    @Option(help: ArgumentHelp("high, normal or low.", valueName: "class")) var priority = PriorityClass.normal
    @Flag(help: "The call may run again if its worker is lost.") var idempotent = false
    @OptionGroup var common: Common

    enum PriorityClass: String, ExpressibleByArgument, CaseIterable { case high, normal, low }
    static let largestBody = 1 << 30
    static let longestName = 255

    func validate() throws {
        guard body == nil || file == nil else { throw ValidationError("give the body or --file, not both") }
        guard method.contains(".") else { throw ValidationError("\(method) must be POOL.METHOD; `poolctl methods` lists them") }
        let length = method.utf8.count
        guard length <= Self.longestName else { throw ValidationError("a method's name may have \(Self.longestName) bytes; this one has \(length)") }
    }

    func run() throws {
        var options = CallOptions()
        options.idempotent = idempotent
        options.budget = timeout?.duration
        switch priority {
        case .normal: options.priority = .normal
        case .high: options.priority = .high
        case .low: options.priority = .low
        }
        if let session { options.session = UInt64(session) ?? Self.hash(session) }
        let payload = try body == "-" ? Self.read("-") : file.map(Self.read) ?? Array((body ?? "").utf8)
        let connection = try common.connect()
        let known = connection.methods[method]
        // poold ends the call itself; beyond that it would be poold that hangs.
        connection.answerLimit = timeout.map { $0.duration + (common.waitFor?.duration ?? Common.answerLimit) }
        let result: (body: [UInt8], ranNanoseconds: UInt64)
        do throws(PoolError) { result = try connection.call(method, body: payload, options: options) } catch { throw explain(error, connection) }
        try show(result.body, ranNanoseconds: result.ranNanoseconds, isJSON: known?.codec == .json)
    }

    private func show(_ body: [UInt8], ranNanoseconds: UInt64, isJSON: Bool) throws {
        if common.json {
            let text = isJSON ? String(decoding: body, as: UTF8.self) : quoted(String(decoding: body, as: UTF8.self))
            return Output.line("{\"result\": \(text), \"ran_seconds\": \(Double(ranNanoseconds) / 1e9)}")
        }
        let isTerminal = isatty(1) == 1
        if isJSON && !raw {
            let text = String(decoding: body, as: UTF8.self)
            return Output.line(isTerminal ? PrettyJSON.format(text) : text)
        }
        if isTerminal && Self.isBinary(body) {
            throw PoolError(
                status: "failed",
                message: "the result is \(Format.bytes(UInt64(body.count))) of binary data; it is not written to a terminal. Redirect it: > FILE")
        }
        body.withUnsafeBytes { Output.write($0) }
        if isTerminal && !raw && !body.isEmpty && body.last != 0x0A { Output.line("") }
    }

    /// No text in UTF-8, or with control characters that would confuse a terminal.
    private static func isBinary(_ body: [UInt8]) -> Bool {
        String(validating: body, as: UTF8.self) == nil || body.contains { $0 < 0x20 && $0 != 0x09 && $0 != 0x0A && $0 != 0x0D || $0 == 0x7F }
    }

    /// Names what was probably meant.
    private func explain(_ error: PoolError, _ connection: PoolConnection) -> PoolError {
        let names = connection.methods.keys.sorted()
        let pool = String(method.prefix { $0 != "." })
        switch error.status {
        case "no_such_method": return Common.suggesting(error, method, among: names.filter { $0.hasPrefix(pool + ".") })
        case "no_such_pool": return Common.suggesting(error, pool, among: Set(names.compactMap { $0.split(separator: ".").first.map(String.init) }).sorted())
        default: return error
        }
    }

    static func noPool(_ name: String, among names: [String]) -> PoolError {
        let error = PoolError(
            status: "no_such_pool", message: "there is no pool \(name) with a method that you may call; there are: \(names.joined(separator: ", "))")
        return Common.suggesting(error, name, among: names)
    }

    static func read(_ path: String) throws(PoolError) -> [UInt8] {
        let descriptor = path == "-" ? 0 : open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw unreadable(path) }
        defer { if descriptor > 0 { close(descriptor) } }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = buffer.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress!, $0.count) }
            if count < 0 && errno == EINTR { continue }
            if count < 0 { throw unreadable(path) }
            if count == 0 { return bytes }
            bytes.append(contentsOf: buffer[0..<count])
            guard bytes.count <= largestBody else { throw PoolError(status: "wrong_usage", message: "\(path) has more than 1 GiB") }
        }
    }

    private static func unreadable(_ path: String) -> PoolError {
        let name = path == "-" ? "standard input" : path
        return PoolError(status: "wrong_usage", message: "cannot read \(name): \(String(cString: strerror(errno)))")
    }

    /// FNV-1a: the same name is the same session everywhere.
    static func hash(_ name: String) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return hash == 0 ? 1 : hash
    }
}
