import ArgumentParser
import PoolClient
import PoolProtocol

struct PostMortem: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "post-mortem", abstract: "Show how workers died, the newest last.",
        usage: "poolctl post-mortem [<pool> [<worker>]] [--last <n>] [--full]",
        discussion: """
            With a worker, or --full: everything that is known, with its last output, its
            stack, the call that it ran.

            EXAMPLES
              poolctl post-mortem text
              poolctl post-mortem text 0.3
              poolctl post-mortem text --last 1 --full
            """)
    @OptionGroup var filter: PoolFilter
    @Argument(help: "Only this worker, SLOT or SLOT.GENERATION, in full.") var worker: WorkerName?
    @Option(help: "So many deaths.") var last = 10
    @Flag(help: "Each in full.") var full = false
    @OptionGroup var common: Common

    func validate() throws {
        guard last > 0 else { throw ValidationError("--last \(last) is below 1") }
    }

    func run() throws {
        var deaths: Poold_V1_Deaths = try common.ask(.postMortem, filter.message, pool: filter.pool)
        deaths.deaths = Array(deaths.deaths.filter(isWanted).sorted { $0.at < $1.at }.suffix(last))
        if let worker, deaths.deaths.isEmpty {
            let name = "\(worker.slot)" + (worker.generation.map { ".\($0)" } ?? "")
            throw PoolError(status: "not_found", message: "no death of worker \(name) of pool \(filter.pool ?? "") is kept; see `poolctl post-mortem`")
        }
        if common.json { return Output.line(try deaths.json()) }
        guard !deaths.deaths.isEmpty else { return Output.line("no worker has died") }
        if worker != nil || full {
            for (index, death) in deaths.deaths.enumerated() { Output.line((index > 0 ? "\n" : "") + Self.detail(death, common.style).joined(separator: "\n")) }
            return
        }
        var table = Table([
            .left("WHEN"), .left("POOL", canShrink: true), .left("WORKER", canShrink: true), .right("PID", rank: 3), .left("EXIT", canShrink: true),
            .left("CAUSE", canShrink: true),
            .left("RUNNING", rank: 1, canShrink: true), .right("LIVED", rank: 2), .right("CALLS", rank: 4), .right("MEMORY", rank: 5),
        ])
        for death in deaths.deaths {
            table.add([
                Cell(Format.clock(death.at)), Cell(death.pool), Cell(death.worker), "\(death.pid)", Cell(Self.exit(death)), Cell(death.cause),
                Cell(Format.visible(death.method)), Cell(Format.age(death.livedNanoseconds)), "\(death.calls)",
                Cell(death.privateBytes > 0 ? Format.bytes(death.privateBytes) : ""),
            ])
        }
        Output.line(table.lines(common.style).joined(separator: "\n"))
    }

    private func isWanted(_ death: Poold_V1_Death) -> Bool {
        guard let worker else { return true }
        return death.worker == "\(worker.slot).\(worker.generation ?? 0)" || (worker.generation == nil && death.worker.hasPrefix("\(worker.slot)."))
    }

    static func exit(_ death: Poold_V1_Death) -> String {
        guard death.exit == "signal" else { return "\(death.exit) \(death.code)" }
        let names: [Int32: String] = [
            1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 11: "SEGV", 13: "PIPE", 14: "ALRM", 15: "TERM", 24: "XCPU",
            25: "XFSZ", 31: "SYS",
        ]
        return names[death.code].map { "SIG\($0)" } ?? "signal \(death.code)"
    }

    static func detail(_ death: Poold_V1_Death, _ style: Style) -> [String] {
        var lines = [
            Format.visible("worker \(death.worker) of \(death.pool), pid \(death.pid): ") + style.paint(Format.visible("\(exit(death)), \(death.cause)"), .bad)
        ]
        func line(_ name: String, _ text: String) { lines.append("  " + Format.pad(name, 10) + Format.visible(text)) }
        line("when", "\(Format.clock(death.at)), after \(Format.age(death.livedNanoseconds)) and \(Format.count(Int(clamping: death.calls), "answered call"))")
        if !death.method.isEmpty {
            line(
                "running",
                "\(death.method), for \(Format.span(death.ranNanoseconds)), body \(Format.bytes(death.bodyBytes))"
                    + (death.hash.isEmpty ? "" : ", hash \(death.hash)"))
        }
        if death.held > 0 { line("held", Format.count(Int(death.held), "call")) }
        // 0: never measured.
        var memory: [String] = []
        if death.privateBytes > 0 { memory.append("\(Format.bytes(death.privateBytes)) private") }
        if death.maximumResidentBytes > 0 { memory.append("at most \(Format.bytes(death.maximumResidentBytes)) resident") }
        if !memory.isEmpty { line("memory", memory.joined(separator: ", ")) }
        for (title, text) in [("failure", death.failure), ("stack", death.stack), ("stderr", death.stderrTail), ("stdout", death.stdoutTail)]
        where !text.isEmpty {
            lines.append("  \(title)")
            lines += Format.lines(text, indent: 4)
        }
        return lines
    }
}
