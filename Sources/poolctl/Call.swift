import ArgumentParser
import Glibc
import PoolClient
import PoolWire

struct Call: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Call a method and print its result.",
        discussion: """
            The body is JSON for methods with codec json (an object gives keyword arguments, an array positional ones) and
            bytes as they are for codec bytes.

            EXAMPLES
              poolctl call text.summarize '{"text": "One. Two.", "sentences": 1}'
              poolctl call vectors.normalize --file vector.f32 > unit.f32
            """)

    @OptionGroup var common: Common
    @Argument(help: "pool.method") var method: String
    @Argument(help: "The body. Default: none.") var body: String?
    @Option(help: ArgumentHelp("Read the body from a file; - is standard input.", valueName: "path")) var file: String?
    @Flag(help: "Print the result's bytes as they are, without a line break.") var raw = false
    @Option(help: ArgumentHelp("A session number, or a name that is turned into one.", valueName: "session")) var session: String?
    @Option(help: ArgumentHelp("Budget for waiting and running together, like 5s or 200ms. Default: the pool's.", valueName: "span")) var timeout: String?
    @Option(help: ArgumentHelp("high, normal or low.", valueName: "class")) var priority: String = "normal"
    @Flag(help: "The call may run again if its worker is lost.") var idempotent = false

    func run() throws {
        guard body == nil || file == nil else { throw ValidationError("give the body or --file, not both") }
        var options = CallOptions()
        options.idempotent = idempotent
        if let timeout { options.budget = try duration(timeout) }
        switch priority {
        case "normal": options.priority = .normal
        case "high": options.priority = .high
        case "low": options.priority = .low
        default: throw ValidationError("--priority \(priority) is not one of high, normal, low")
        }
        if let session { options.session = UInt64(session) ?? Self.hash(session) }
        let payload = try file.map(Self.read) ?? Array((body ?? "").utf8)
        let connection = try common.connect()
        let isText = connection.methods[method] == .json
        let result: (body: [UInt8], ranNanoseconds: UInt64)
        do { result = try connection.call(method, body: payload, options: options) } catch { throw common.failed(error) }
        if common.json {
            let text = isText ? String(decoding: result.body, as: UTF8.self) : quoted(String(decoding: result.body, as: UTF8.self))
            print("{\"result\": \(text), \"ran_seconds\": \(Double(result.ranNanoseconds) / 1e9)}")
            return
        }
        var at = 0
        var output = result.body
        if !raw && isText { output.append(0x0A) }
        while at < output.count {
            let written = output.withUnsafeBytes { write(1, $0.baseAddress! + at, output.count - at) }
            guard written > 0 else { throw ExitCode(9) }
            at += written
        }
    }

    static func read(_ path: String) throws -> [UInt8] {
        let descriptor = path == "-" ? 0 : open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw ValidationError("cannot read \(path): \(String(cString: strerror(errno)))") }
        defer { if descriptor > 0 { close(descriptor) } }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = buffer.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress!, $0.count) }
            if count < 0 { throw ValidationError("cannot read \(path): \(String(cString: strerror(errno)))") }
            if count == 0 { return bytes }
            bytes.append(contentsOf: buffer[0..<count])
            guard bytes.count <= 1 << 30 else { throw ValidationError("\(path) has more than 1 GiB") }
        }
    }

    /// FNV-1a: the same name is the same session everywhere.
    static func hash(_ name: String) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return hash == 0 ? 1 : hash
    }
}
