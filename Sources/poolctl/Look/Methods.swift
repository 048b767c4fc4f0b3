import ArgumentParser
import PoolClient
import PoolWire

struct Methods: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "methods", abstract: "List what you may call.",
        usage: "poolctl methods [<pool>] [options]",
        discussion: """
            EXAMPLE
              poolctl methods text
            """)
    @OptionGroup var filter: PoolFilter
    @OptionGroup var common: Common

    func run() throws {
        let connection = try common.connect()
        var methods = connection.methods.values.sorted { $0.name < $1.name }
        if let pool = filter.pool {
            let pools = Set(methods.compactMap { $0.name.split(separator: ".").first.map(String.init) })
            methods.removeAll { !$0.name.hasPrefix(pool + ".") }
            if methods.isEmpty { throw Call.noPool(pool, among: pools.sorted()) }
        }
        if common.json {
            let list = methods.map {
                "{\"method\": \(quoted($0.name)), \"codec\": \(quoted("\($0.codec)")), \"idempotent\": \($0.flags & MethodEntry.idempotent != 0)}"
            }
            return Output.line("[" + list.joined(separator: ", ") + "]")
        }
        guard !methods.isEmpty else { return complain("nothing may be called yet; see `poolctl status`") }
        var table = Table([.left("METHOD"), .left("CODEC"), .left("", rank: 1)])
        for method in methods {
            table.add([Cell(method.name), Cell("\(method.codec)"), Cell(method.flags & MethodEntry.idempotent != 0 ? "idempotent" : "")])
        }
        Output.line(table.lines(common.style).joined(separator: "\n"))
    }
}

struct Ping: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "ping", abstract: "Measure a round trip to poold itself.",
        usage: "poolctl ping [--count <count>] [options]",
        discussion: """
            EXAMPLE
              poolctl ping --count 5
            """)
    @Option(help: "How often, a second apart.") var count = 1
    @OptionGroup var common: Common

    func validate() throws {
        guard (1...1_000_000).contains(count) else { throw ValidationError("--count \(count) is outside of 1…1000000") }
    }

    func run() throws {
        let connection = try common.connect()
        Interrupt.watch()
        for round in 1...count {
            let span = try connection.ping()
            Output.line(common.json ? "{\"round_trip_seconds\": \(Double(span) / 1e9)}" : "poold answers in \(span / 1000) µs")
            if round < count && !Interrupt.sleep(seconds: 1) { return }
        }
    }
}
