import ArgumentParser
import Glibc
import PoolConfig
import PoolProtocol

struct Doctor: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Check this machine, Python and the configuration.",
        usage: "poolctl doctor [--config <path>] [--problems] [options]",
        discussion: """
            Says of each finding what it costs and what to do. Exit code 0 if nothing
            failed; warnings do not count. poold need not run. The modules of the pools
            are imported in throw-away processes.

            EXAMPLES
              poolctl doctor
              poolctl doctor --config /etc/poold/poold.yaml
              poolctl doctor --json
            """)
    @Option(help: ArgumentHelp("The configuration to check. Default: the usual file, then the running poold's.", valueName: "path"), completion: .file())
    var config: String?
    @Option(help: ArgumentHelp("The Python to check where no configuration names one.", valueName: "program"))
    var python = "python3"
    @Flag(help: "Only what is not ok.") var problems = false
    @OptionGroup var common: Common

    func run() throws {
        let style = common.style
        var counts: [Finding.Level: Int] = [:]
        var shown: [String] = []
        var area = ""
        func tell(_ findings: [Finding]) {
            for finding in findings {
                counts[finding.level, default: 0] += 1
                guard !problems || finding.level != .ok else { continue }
                if common.json {
                    shown.append(finding.json)
                    continue
                }
                if finding.area != area { Output.line((area.isEmpty ? "" : "\n") + finding.area) }
                area = finding.area
                Output.line(finding.lines(style).joined(separator: "\n"))
            }
        }
        let configured = ConfigurationCheck.load(config, running: try? common.ask(.version))
        tell(KernelCheck.findings())
        tell(LimitCheck.findings(configured.configuration))
        tell(MemoryCheck.findings())
        tell(ProcessCheck.findings())
        tell(SystemdCheck.findings())
        tell(SocketCheck.findings(common, configured.configuration))
        tell(configured.findings)
        tell(PythonCheck.findings(configured.configuration, fallback: python))
        for pool in configured.configuration?.pools ?? [] { tell(PoolCheck.findings(pool)) }
        let (ok, warned, failed) = (counts[.ok] ?? 0, counts[.warn] ?? 0, counts[.fail] ?? 0)
        if common.json {
            Output.line("{\"findings\": [\(shown.joined(separator: ", "))], \"ok\": \(ok), \"warnings\": \(warned), \"failures\": \(failed)}")
        } else {
            Output.line((area.isEmpty ? "" : "\n") + "\(ok) ok, \(Format.count(warned, "warning")), \(Format.count(failed, "failure"))")
        }
        if failed > 0 { throw ExitCode(ExitStatus.failed.rawValue) }
    }
}

/// Small files of /proc and /sys.
enum SystemFile {
    static func read(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while bytes.count < 1 << 20 {
            let count = buffer.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress!, $0.count) }
            if count < 0 { return nil }
            if count == 0 { break }
            bytes.append(contentsOf: buffer[..<count])
        }
        while bytes.last == 0x0A { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The number behind `name:` in /proc/meminfo, bytes.
    static func memory(_ name: String) -> UInt64? {
        guard let line = read("/proc/meminfo")?.split(separator: "\n").first(where: { $0.hasPrefix(name + ":") }) else { return nil }
        return line.split(separator: " ").dropFirst().first.flatMap { UInt64($0) }.map { $0 * 1024 }
    }

    /// Free bytes of the file system that holds the path.
    static func free(_ path: String) -> UInt64? {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { return nil }
        return UInt64(status.f_bavail) * UInt64(status.f_frsize)
    }
}
