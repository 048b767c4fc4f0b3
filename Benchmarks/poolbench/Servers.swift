import CPoold
import Foundation

/// Starts and ends what is measured, each on a socket of its own.
struct Servers {
    let root: String
    let python: String
    let folder: String
    let workers: Int

    init(python: String, workers: Int) throws {
        self.python = python
        self.workers = workers
        // .build/CONFIGURATION/poolbench lies three levels below the root.
        let executable = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        var folder = executable.deletingLastPathComponent()
        while folder.path != "/" && !FileManager.default.fileExists(atPath: folder.appending(path: "Benchmarks/bench_worker.py").path) {
            folder.deleteLastPathComponent()
        }
        guard folder.path != "/" else {
            throw LoadError(description: "run poolbench from the source tree: Benchmarks/bench_worker.py was not found above \(executable.path)")
        }
        root = folder.path
        self.folder = "/tmp/poolbench-\(getpid())"
        try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
    }

    func remove() { try? FileManager.default.removeItem(atPath: folder) }

    enum Kind: String, CaseIterable {
        case floorDirect = "floor-direct"
        case floorRelay = "floor-relay"
        case poold
    }

    func start(_ kind: Kind, options: [String] = []) throws -> Server {
        let socket = "\(folder)/\(kind.rawValue)-\(UInt64.random(in: 0 ... .max)).s"
        let floorWorker = root + "/Benchmarks/floor/floor_worker.py"
        let command: [String]
        switch kind {
        case .floorDirect: command = [python, floorWorker, socket]
        case .floorRelay: command = [root + "/.build/floor_relay", socket, "\(workers)", python, floorWorker]
        case .poold:
            command =
                [
                    root + "/.build/release/poold", "serve", "--socket", socket, "--pool", "bench=\(root)/Benchmarks/bench_worker.py", "--workers",
                    "\(workers)", "--python", python,
                ] + options
        }
        guard FileManager.default.isExecutableFile(atPath: command[0]) else {
            throw LoadError(description: "\(command[0]) is missing: `make build` and `make -C Benchmarks/floor`")
        }
        let process = Process()
        process.executableURL = URL(filePath: command[0])
        process.arguments = Array(command.dropFirst())
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        for _ in 0..<400 {
            let probe = cpoold_connect(socket, true)
            if probe >= 0 {
                close(probe)
                usleep(300_000)
                return Server(process: process, socket: socket, isFloor: kind != .poold)
            }
            guard process.isRunning else { break }
            usleep(25_000)
        }
        process.terminate()
        throw LoadError(description: "\(kind.rawValue) did not start: \(command.joined(separator: " "))")
    }
}

struct Server {
    let process: Process
    let socket: String
    let isFloor: Bool
    func stop() {
        process.terminate()
        process.waitUntilExit()
    }
}
