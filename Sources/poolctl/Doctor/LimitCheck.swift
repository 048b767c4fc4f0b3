import Glibc
import PoolConfig
import PoolCore

/// Limits that poold runs into under load, not at its start.
enum LimitCheck {
    /// A worker's socket, page, stack file, two pipes and pidfd.
    static let descriptorsPerWorker = 6

    static func findings(_ configuration: Configuration?) -> [Finding] {
        var list: [Finding] = []
        let connections = configuration?.maximumConnections ?? 65_536
        let workers = configuration.map { $0.pools.reduce(0) { $0 + $1.policy.maximumWorkers } } ?? 64
        let wanted = UInt64(connections + workers * descriptorsPerWorker + 64)
        let descriptors = limit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue))
        if descriptors >= wanted {
            list.append(.ok("limits", "descriptors", "\(text(descriptors)) for \(connections) connections and \(workers) workers"))
        } else {
            let left = max(0, Int(clamping: descriptors) - workers * descriptorsPerWorker - 64)
            let advice = "LimitNOFILE=\(wanted) in poold's unit, or ulimit -Hn; or lower max_connections"
            list.append(
                left < 64
                    ? .fail(
                        "limits", "descriptors", "\(text(descriptors)), \(wanted) are wanted", costs: "not even the workers can all start", advice: advice)
                    : .warn(
                        "limits", "descriptors", "\(text(descriptors)), \(wanted) are wanted",
                        costs: "about \(left) callers fit beside the workers; more wait in the socket's queue", advice: advice))
        }
        let processes = min(limit(__rlimit_resource_t(__RLIMIT_NPROC.rawValue)), pidsOfGroup() ?? .max)
        let wantedProcesses = UInt64(workers * 2 + 64)
        if processes >= wantedProcesses {
            list.append(.ok("limits", "processes", text(processes)))
        } else {
            list.append(
                .warn(
                    "limits", "processes", "\(processes), \(wantedProcesses) are wanted (workers and their threads count)",
                    costs: "forks fail with EAGAIN: a pool stays below what it wants, at the worst under load",
                    advice: "LimitNPROC= and TasksMax= in poold's unit, or ulimit -Hu"))
        }
        return list
    }

    private static func limit(_ resource: __rlimit_resource_t) -> UInt64 {
        var limit = rlimit()
        return getrlimit(resource, &limit) == 0 ? UInt64(limit.rlim_max) : .max
    }

    private static func text(_ limit: UInt64) -> String { limit > 1 << 40 ? "unlimited" : "\(limit)" }

    private static func pidsOfGroup() -> UInt64? {
        ProcessCheck.ownGroup().flatMap { SystemFile.read($0 + "/pids.max") }.flatMap { UInt64($0) }
    }
}
