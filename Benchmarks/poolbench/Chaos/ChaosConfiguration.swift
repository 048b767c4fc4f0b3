import Foundation

/// The configuration file of a run, and what reloads change in it.
struct ChaosConfiguration {
    let folder: String
    let root: String
    let python: String
    /// `max_calls` of the queue of the echo pool: a limit that is applied live.
    var echoQueue = 32_768
    /// `prefetch.max_calls` of the CPU pool.
    var cpuPrefetch = 16
    var hasExtra = true
    /// What the method of the pool `names` is called.
    var method = "first"
    var isBroken = false

    var path: String { folder + "/poold.yaml" }
    var socket: String { folder + "/s" }
    var control: String { folder + "/s.control" }
    private var worker: String { root + "/Benchmarks/chaos_worker.py" }
    private var namesModule: String { folder + "/names.py" }

    func write() throws {
        let source = try String(contentsOfFile: root + "/Benchmarks/chaos_names.py", encoding: .utf8)
        let names = source.replacing("NAME = \"first\"", with: "NAME = \"\(method)\"")
        // A file that is written anew is a changed one to a reload.
        if (try? String(contentsOfFile: namesModule, encoding: .utf8)) != names { try names.write(toFile: namesModule, atomically: true, encoding: .utf8) }
        try text.write(toFile: path, atomically: true, encoding: .utf8)
    }

    private var text: String {
        var lines = [
            "daemon:", "  socket: \(socket)", "  control_socket: \(control)", "  shutdown_limit: 20s", "log:", "  level: info",
            "  worker_lines_per_second: 20", "defaults:", "  python: \(python)", "  python_path: [\(root)/python]", "  overrun:", "    hang_after: 1s",
            "  recycle:", "    max_memory: 200MiB", "    measure_interval: 2s", "  backoff:", "    max: 5s", "  circuit:", "    open_for: 2s", "pools:",
        ]
        for pool in ChaosPool.allCases where pool != .extra || hasExtra {
            lines += [
                "  \(pool.name):", "    module: \(pool == .names ? namesModule : worker)", "    workers: \(pool.workers)", "    min_workers: 1",
                "    max_workers: \(pool.maximumWorkers)",
            ]
            if !pool.usesTemplate { lines.append("    template: false") }
            switch pool {
            case .echo:
                lines += ["    queue:", "      max_calls: \(echoQueue)", "    warm:", "    - {call: work, arguments: \"\"}", "    - {import: json}"]
            case .cpu: lines += ["    prefetch:", "      max_calls: \(cpuPrefetch)"]
            case .session: lines += ["    sessions:", "      affinity: prefer", "      time_to_live: 30s"]
            case .sleeper, .numbers, .cold, .wild, .names, .extra: break
            }
        }
        if isBroken { lines += ["  broken:", "    modul: nothing", "    workers: minus one"] }
        return lines.joined(separator: "\n") + "\n"
    }
}
