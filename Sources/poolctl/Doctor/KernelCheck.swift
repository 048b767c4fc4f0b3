import CPoold
import Glibc

/// What poold needs of the kernel, tried.
enum KernelCheck {
    static func findings() -> [Finding] {
        var list: [Finding] = []
        var name = utsname()
        uname(&name)
        let release = withUnsafeBytes(of: &name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let processors = sysconf(Int32(_SC_NPROCESSORS_ONLN))
        list.append(.ok("kernel", "Linux", "\(release), \(Format.count(processors, "processor"))"))
        let update = "run Linux 5.11 or newer; in a container, allow the system call in its seccomp profile"
        func probe(_ name: String, _ error: Int32, _ costs: String, isNeeded: Bool) {
            if error == 0 { return list.append(.ok("kernel", name, "works")) }
            let found = String(cString: strerror(error))
            list.append(
                isNeeded ? .fail("kernel", name, found, costs: costs, advice: update) : .warn("kernel", name, found, costs: costs, advice: update))
        }
        probe("pidfd_open", cpoold_probe_pidfd(), "poold cannot signal workers without the risk of hitting another process", isNeeded: true)
        probe("memfd_create with seals", cpoold_probe_memfd_sealing(), "no execution page: no worker can start", isNeeded: true)
        probe(
            "membarrier", cpoold_probe_membarrier(), "a call that is taken back may also be begun: at most once does not hold", isNeeded: true)
        probe("PR_SET_CHILD_SUBREAPER", cpoold_probe_subreaper(), "forks of a template cannot be adopted: every worker starts cold", isNeeded: true)
        probe("close_range", cpoold_probe_close_range(), "workers start slower: each descriptor is closed singly", isNeeded: false)
        probe("epoll_pwait2", cpoold_probe_epoll_pwait2(), "only poolbench: its pauses are rounded to milliseconds", isNeeded: false)
        if SystemFile.read("/proc/self/smaps_rollup") != nil {
            list.append(.ok("kernel", "/proc/self/smaps_rollup", "readable"))
        } else {
            list.append(
                .warn(
                    "kernel", "/proc/self/smaps_rollup", "cannot be read", costs: "private memory is unknown: `recycle.max_memory` has no effect",
                    advice: "mount /proc, with a kernel that has CONFIG_PROC_PAGE_MONITOR"))
        }
        list.append(clockSource())
        return list
    }

    private static func clockSource() -> Finding {
        guard let source = SystemFile.read("/sys/devices/system/clocksource/clocksource0/current_clocksource") else {
            return .ok("kernel", "clock source", "not shown here")
        }
        guard ["hpet", "acpi_pm", "pit", "jiffies"].contains(source) else { return .ok("kernel", "clock source", source) }
        return .warn(
            "kernel", "clock source", source, costs: "each look at the clock is a system call of about a microsecond; poold looks several times a call",
            advice: "find out why the kernel rejected tsc (dmesg | grep -i clocksource)")
    }
}
