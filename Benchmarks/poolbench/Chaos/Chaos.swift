import ArgumentParser
import CPoold
import Foundation

struct Chaos: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Load with kills, reloads, hostile clients and misbehaving workers: does every call end once and truthfully, and does nothing leak?",
        discussion: """
            It starts its own poold. One seed makes one plan of calls and faults. Exit status 0: no violation.

            EXAMPLE
              poolbench chaos --seconds 300 --seed 1 --table chaos.md
            """)
    @Option(help: "Seconds of load with faults, 10 to 86,400.") var seconds = 300.0
    @Option(help: "Calls a second, 1 to 100,000.") var rate = 2000.0
    @Option(help: "Of the plan. Default: any.") var seed: UInt64?
    @Option(help: "Python with numpy, for the workers.") var python = "python3"
    @Option(help: "Write the table as Markdown to this file.") var table: String?
    @Option(help: "Folder for logs, samples and sockets. Default: a new one in /tmp, kept if the run fails.") var folder: String?
    @Flag(help: "Print JSON.") var json = false
    @Option(help: .hidden) var sabotage: [Sabotage] = []

    func validate() throws {
        guard (10...86_400).contains(seconds) else { throw ValidationError("--seconds \(seconds) is outside of 10…86400") }
        guard (1...100_000).contains(rate) else { throw ValidationError("--rate \(rate) is outside of 1…100000") }
    }

    func run() throws {
        let seed = seed ?? UInt64.random(in: 1...999_999_999)
        var server = ServerOptions()
        server.python = python
        server.workers = 1
        server.onecpu = false
        server.json = json
        let places = try server.servers()
        defer { places.remove() }
        let folder = folder ?? "/tmp/poold-chaos-\(seed)-\(getpid())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        _ = cpoold_raise_descriptor_limit()
        if !json { print("chaos: seed \(seed), \(Int(seconds)) s, \(Int(rate)) calls/s; logs in \(folder)") }
        fflush(nil)
        let run = try ChaosRun(
            configuration: ChaosConfiguration(folder: folder, root: places.root, python: places.python), seed: seed, seconds: seconds, rate: rate,
            sabotage: Set(sabotage))
        try run.execute()
        let report = ChaosReport(run: run, command: "poolbench chaos --seconds \(Int(seconds)) --rate \(Int(rate)) --seed \(seed)")
        if let table { try report.markdown.write(toFile: table, atomically: true, encoding: .utf8) }
        print(json ? report.json : report.markdown)
        let violations = run.board.with { $0.violations }
        guard violations.isEmpty else {
            try violations.joined(separator: "\n").write(toFile: folder + "/violations.txt", atomically: true, encoding: .utf8)
            FileHandle.standardError.write(
                Data("poolbench chaos: FAILED with seed \(seed): \(violations[0])\n\(violations.count) violations in \(folder)/violations.txt\n".utf8))
            throw ExitCode(1)
        }
        if self.folder == nil { try? FileManager.default.removeItem(atPath: folder) }
    }
}
