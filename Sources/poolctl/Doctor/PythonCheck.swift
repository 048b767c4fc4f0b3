import ArgumentParser
import Glibc
import PoolConfig

/// The Pythons that workers run with: version, and the packages that poold needs in them.
enum PythonCheck {
    static let limit = 30.0

    static func findings(_ configuration: Configuration?, fallback: String) -> [Finding] {
        let pools = configuration?.pools.filter { !$0.isReserved } ?? []
        var programs: [(program: String, path: [String])] = []
        for pool in pools where !programs.contains(where: { $0.program == pool.python && $0.path == pool.pythonPath }) {
            programs.append((pool.python, pool.pythonPath))
        }
        if programs.isEmpty { programs.append((fallback, packageFolder().map { [$0] } ?? [])) }
        return programs.flatMap { check($0.program, $0.path) }
    }

    private static func check(_ name: String, _ path: [String]) -> [Finding] {
        guard let program = ProgramRun.find(name) else {
            return [
                .fail(
                    "python", name, "is not on PATH, or cannot be executed", costs: "no worker can start",
                    advice: "install python3 (3.9 or newer), or name another with --python or `python:` in the configuration")
            ]
        }
        let run: ProgramRun
        do throws(ProgramRun.Failure) { run = try ProgramRun.run([program, "-c", script], environment: searching(path), seconds: limit) } catch {
            return [.fail("python", name, error.text, costs: "no worker can start", advice: "check that \(program) runs")]
        }
        let facts = parse(run.report)
        guard !run.isTimeout, let version = facts["version"] else {
            let reason = run.isTimeout ? "did not answer within \(Int(limit)) s" : run.errors.split(separator: "\n").last.map(String.init) ?? "is no Python 3"
            return [.fail("python", name, "\(program) \(reason)", costs: "no worker can start", advice: "name a Python 3.9 or newer")]
        }
        var list: [Finding] = []
        let isOld = facts["old"] == "1"
        list.append(
            isOld
                ? .fail(
                    "python", name, "version \(version) at \(program)", costs: "workers cannot start: the package needs 3.9",
                    advice: "install Python 3.9 or newer, or name another")
                : .ok("python", name, "version \(version) at \(program)"))
        list.append(package(facts, program))
        for (package, costs) in [
            ("msgpack", "methods with codec msgpack cannot be declared"), ("numpy", "modules that import it cannot start; the example pool `vectors` needs it"),
        ] {
            if let found = facts[package] {
                list.append(.ok("python", package, found))
            } else {
                list.append(.warn("python", package, "is not installed", costs: costs, advice: "\(program) -m pip install \(package), if your modules use it"))
            }
        }
        return list
    }

    private static func package(_ facts: [String: String], _ program: String) -> Finding {
        guard let version = facts["poold"] else {
            return .fail(
                "python", "package poold", facts["error"] ?? "cannot be imported", costs: "no worker can start",
                advice: "\(program) -m pip install ./python, or --python-path with its folder")
        }
        let expected = Poolctl.configuration.version
        let found = "version \(version) at \(facts["folder"] ?? "?")"
        guard version != expected else { return .ok("python", "package poold", found) }
        return .warn(
            "python", "package poold", "\(found), poolctl is \(expected)", costs: "features of the newer side are missing, or workers are refused",
            advice: "\(program) -m pip install --upgrade ./python")
    }

    /// Facts as name, tab, value, a line each, on descriptor 3.
    private static let script = """
        import sys, os, platform
        report = os.fdopen(3, "w")
        def say(name, value): report.write(name + "\\t" + str(value).replace("\\n", " ") + "\\n")
        say("version", platform.python_version())
        say("old", int(sys.version_info < (3, 9)))
        try:
            import poold
            from poold import _serve, _registry, template
            say("poold", poold.__version__)
            say("folder", os.path.dirname(poold.__file__))
        except BaseException as error:
            say("error", type(error).__name__ + ": " + str(error))
        for name in ("msgpack", "numpy"):
            try:
                module = __import__(name)
                version = getattr(module, "__version__", None) or ".".join(map(str, getattr(module, "version", ())))
                say(name, "version " + str(version))
            except BaseException:
                pass
        """

    static func parse(_ report: String) -> [String: String] {
        var facts: [String: String] = [:]
        for line in report.split(separator: "\n") {
            let parts = line.split(separator: "\t", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { facts[String(parts[0])] = String(parts[1]) }
        }
        return facts
    }

    /// PYTHONPATH with folders in front of it, as poold gives it to workers.
    static func searching(_ path: [String]) -> [String: String] {
        let inherited = getenv("PYTHONPATH").map { [String(cString: $0)] } ?? []
        let all = (path + inherited).filter { !$0.isEmpty }
        return all.isEmpty ? [:] : ["PYTHONPATH": all.joined(separator: ":")]
    }

    /// The Python package in the source tree that this program was built from, if it was; poold looks there too.
    static func packageFolder() -> String? {
        guard let resolved = realpath("/proc/self/exe", nil) else { return nil }
        defer { free(resolved) }
        var folder = String(cString: resolved)
        for _ in 0..<6 {
            guard let slash = folder.lastIndex(of: "/"), slash != folder.startIndex else { return nil }
            folder = String(folder[..<slash])
            if access(folder + "/python/poold/worker.py", R_OK) == 0 { return folder + "/python" }
        }
        return nil
    }
}
