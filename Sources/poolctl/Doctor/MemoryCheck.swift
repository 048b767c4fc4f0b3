import Glibc

/// Settings of memory that forks of a template feel, and room on disks.
enum MemoryCheck {
    static let leastLogSpace: UInt64 = 256 << 20
    static let leastSharedMemory: UInt64 = 64 << 20

    static func findings() -> [Finding] {
        var list: [Finding] = []
        if let total = SystemFile.memory("MemTotal"), let free = SystemFile.memory("MemAvailable") {
            let found = "\(Format.bytes(free)) available of \(Format.bytes(total))"
            list.append(
                free >= total / 20
                    ? .ok("memory", "memory", found)
                    : .warn("memory", "memory", found, costs: "the kernel may kill workers, or poold", advice: "fewer workers, or more memory"))
        }
        switch SystemFile.read("/proc/sys/vm/overcommit_memory") {
        case "2":
            list.append(
                .warn(
                    "memory", "overcommit", "never (vm.overcommit_memory=2)",
                    costs: "each fork of a big template counts in full: starts fail while memory is free",
                    advice: "sysctl vm.overcommit_memory=0, or template: off for pools with big modules"))
        case let mode?: list.append(.ok("memory", "overcommit", mode == "1" ? "always" : "heuristic"))
        case nil: break
        }
        if let pages = SystemFile.read("/sys/kernel/mm/transparent_hugepage/enabled") {
            if pages.contains("[always]") {
                list.append(
                    .warn(
                        "memory", "transparent huge pages", "always",
                        costs: "a fork that writes one byte copies 2 MiB of the template: first calls are slower and private memory grows",
                        advice: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"))
            } else {
                list.append(.ok("memory", "transparent huge pages", pages.contains("[madvise]") ? "madvise" : "never"))
            }
        }
        if let free = SystemFile.free("/dev/shm") {
            list.append(
                free >= leastSharedMemory
                    ? .ok("memory", "/dev/shm", "\(Format.bytes(free)) free")
                    : .warn(
                        "memory", "/dev/shm", "\(Format.bytes(free)) free", costs: "workers that use multiprocessing or shared memory die of SIGBUS",
                        advice: "mount -o remount,size=1g /dev/shm; in a container --shm-size"))
        } else {
            list.append(
                .warn(
                    "memory", "/dev/shm", "is not mounted", costs: "workers that use multiprocessing or shared memory fail",
                    advice: "mount -t tmpfs tmpfs /dev/shm"))
        }
        // The journal's disk, or where a redirected log most likely goes.
        let logs = access("/var/log", F_OK) == 0 ? "/var/log" : "."
        if let free = SystemFile.free(logs) {
            list.append(
                free >= leastLogSpace
                    ? .ok("memory", "disk of \(logs)", "\(Format.bytes(free)) free")
                    : .warn(
                        "memory", "disk of \(logs)", "\(Format.bytes(free)) free", costs: "log lines are lost once it is full; poold itself goes on",
                        advice: "journalctl --vacuum-size=500M, or make room"))
        }
        return list
    }
}
