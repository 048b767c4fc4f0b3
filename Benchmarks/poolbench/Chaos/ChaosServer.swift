import CPoold
import Foundation

/// The poold of a run: its process, its folder, its log.
final class ChaosServer {
    let configuration: ChaosConfiguration
    /// In the environment of poold and of everything that it starts.
    let marker: String
    let process = Process()
    var folder: String { configuration.folder }
    var journal: String { folder + "/journal" }
    var log: String { folder + "/poold.log" }
    var pid: Int32 { process.processIdentifier }

    init(_ configuration: ChaosConfiguration, marker: String) throws {
        self.configuration = configuration
        self.marker = marker
        try configuration.write()
        let executable = configuration.root + "/.build/release/poold"
        guard FileManager.default.isExecutableFile(atPath: executable) else { throw LoadError(description: "\(executable) is missing: `make build`") }
        FileManager.default.createFile(atPath: log, contents: nil)
        process.executableURL = URL(filePath: executable)
        process.arguments = ["serve", "--config", configuration.path]
        var environment = ProcessInfo.processInfo.environment
        environment[ProcessCensus.variable] = marker
        environment["CHAOS_JOURNAL"] = folder + "/journal"
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        process.environment = environment
        process.standardOutput = FileHandle(forWritingAtPath: log)
        process.standardError = process.standardOutput
        try process.run()
        for _ in 0..<1200 {
            let probe = cpoold_connect(configuration.control, true)
            if probe >= 0 {
                close(probe)
                return
            }
            guard process.isRunning else { break }
            usleep(25_000)
        }
        process.terminate()
        throw LoadError(description: "poold did not start: see \(log)")
    }

    /// SIGTERM, then waits; the exit status, or nil if it had to be killed.
    func stop(limit seconds: Double) -> Int32? {
        process.terminate()
        let end = cpoold_now() + UInt64(seconds * 1e9)
        while process.isRunning && cpoold_now() < end { usleep(20_000) }
        guard process.isRunning else { return process.terminationReason == .exit ? process.terminationStatus : 1000 + process.terminationStatus }
        kill(pid, SIGKILL)
        process.waitUntilExit()
        return nil
    }
}
