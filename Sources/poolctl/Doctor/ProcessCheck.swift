import Glibc

/// What holds poold's workers together.
enum ProcessCheck {
    /// The cgroup v2 folder of this process.
    static func ownGroup() -> String? {
        guard let line = SystemFile.read("/proc/self/cgroup")?.split(separator: "\n").first(where: { $0.hasPrefix("0::") }) else { return nil }
        let folder = "/sys/fs/cgroup" + line.dropFirst(3)
        return access(folder + "/cgroup.procs", F_OK) == 0 ? folder : nil
    }

    /// A warning everywhere: poold does not put its workers into cgroups, whatever this machine could do.
    static func findings() -> [Finding] {
        let isMounted = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0
        return [
            .warn(
                "processes", "cgroup v2", "poold does not use cgroups\(isMounted ? "" : ", and none are mounted at /sys/fs/cgroup")",
                costs: "a child of a worker that calls setsid outlives a kill -9 of poold, and a worker's memory is bounded by recycling alone",
                advice: "run poold as a systemd service (deploy/systemd/poold.service): systemd ends what a dead poold leaves behind, and MemoryMax= "
                    + "bounds poold and its workers together; set recycle.max_memory")
        ]
    }
}

/// systemd as the thing that starts, watches and restarts poold.
enum SystemdCheck {
    static func findings() -> [Finding] {
        guard access("/run/systemd/system", F_OK) == 0 else {
            let installed = ProgramRun.find("systemctl") != nil ? "is installed but does not run this machine" : "is not installed"
            return [
                .warn(
                    "systemd", "systemd", installed, costs: "nothing restarts poold after a crash or when it hangs, and nothing activates its socket",
                    advice: "start `poold serve` by what runs this machine, and have it restarted on failure")
            ]
        }
        var list: [Finding] = []
        let version = ProgramRun.find("systemctl").flatMap { try? ProgramRun.run([$0, "--version"], seconds: 5) }
        let words = version?.output.split(whereSeparator: \.isWhitespace).prefix(2).joined(separator: " ") ?? "systemd"
        list.append(.ok("systemd", "systemd", "\(words) runs this machine"))
        if getenv("NOTIFY_SOCKET") != nil { list.append(.ok("systemd", "NOTIFY_SOCKET", "this process is part of a service that may notify")) }
        if let state = ProgramRun.find("systemctl").flatMap({ try? ProgramRun.run([$0, "show", "poold.service", "-p", "LoadState,ActiveState"], seconds: 5) }) {
            if state.output.contains("LoadState=loaded") {
                let active = state.output.split(separator: "\n").first { $0.hasPrefix("ActiveState=") }.map { String($0.dropFirst(12)) } ?? "unknown"
                list.append(
                    active == "failed"
                        ? .fail(
                            "systemd", "poold.service", "failed", costs: "poold does not run",
                            advice: "journalctl -u poold -e, then systemctl reset-failed poold")
                        : .ok("systemd", "poold.service", active))
            } else {
                list.append(
                    .warn(
                        "systemd", "poold.service", "is not installed", costs: "poold does not start with the machine",
                        advice: "install deploy/systemd/poold.service and poold.socket, then systemctl enable --now poold.socket"))
            }
        }
        return list
    }
}
