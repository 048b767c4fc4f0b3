import ArgumentParser
import Glibc
import Logging
import PoolConfig
import PoolCore
import PoolRuntime

@main
struct Poold: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "poold",
        abstract: "A pool of Python workers behind a Unix socket.",
        discussion: """
            Without a subcommand it serves the example pools on a private socket and says how to call them.

            EXAMPLE
              poold serve --socket /run/poold/poold.sock --pool text=/srv/text.py --workers 4
            """,
        version: PooldVersion.text,
        subcommands: [Serve.self],
        defaultSubcommand: Serve.self)
}

struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve pools until SIGTERM (a second one ends at once).",
        discussion: """
            EXAMPLE
              poold serve --pool text=/srv/text.py --pool vectors=company.vectors --workers 4
            """)

    @Option(help: ArgumentHelp("Socket for callers. Default: $XDG_RUNTIME_DIR/poold/poold.sock or /tmp/poold-UID/poold.sock.", valueName: "path"))
    var socket: String?

    @Option(help: ArgumentHelp("Socket for poolctl. Default: the callers' with .control after it.", valueName: "path"))
    var control: String?

    @Option(
        name: .customLong("pool"),
        help: ArgumentHelp(
            "A pool: NAME=MODULE, a dotted Python module or a path to a .py file. Repeat for more. Default: the example pools.", valueName: "name=module"))
    var pools: [String] = []

    @Option(help: ArgumentHelp("Workers of each pool, 0 to 448.", valueName: "count"))
    var workers = 2

    @Option(help: ArgumentHelp("Python to run workers with: a path or a name on PATH.", valueName: "program"))
    var python = "python3"

    @Option(help: ArgumentHelp("Folder to put on the workers' module path. Repeat for more.", valueName: "folder"))
    var pythonPath: [String] = []

    @Option(help: ArgumentHelp("Fork workers from a process that has imported the module (on), or start each from nothing (off).", valueName: "on|off"))
    var template: Switch = .on

    @Option(help: ArgumentHelp("Calls a worker may hold, running and sent ahead, 1 to 64. 1 sends nothing ahead.", valueName: "calls"))
    var window = 16

    @Option(help: ArgumentHelp("Budget of a call that names none, in seconds.", valueName: "seconds"))
    var budget = 60.0

    @OptionGroup(title: "Pool policy") var policies: PolicyOptions

    @Option(help: ArgumentHelp("trace, debug, info, notice, warning or error.", valueName: "level"))
    var logLevel: String = "info"

    enum Switch: String, ExpressibleByArgument, CaseIterable { case on, off }

    func validate() throws {
        guard (0...448).contains(workers) else { throw ValidationError("--workers \(workers) is outside of 0…448") }
        guard (1...64).contains(window) else { throw ValidationError("--window \(window) is outside of 1…64") }
        guard budget > 0, budget <= 86_400 else { throw ValidationError("--budget \(budget) is outside of 0…86400 seconds") }
        guard Logger.Level(rawValue: logLevel) != nil else {
            throw ValidationError("--log-level \(logLevel) is not one of trace, debug, info, notice, warning, error")
        }
    }

    func run() throws {
        let level = Logger.Level(rawValue: logLevel) ?? .info
        var log = Logger(label: "poold") { _ in LineLogHandler() }
        log.logLevel = level
        let isDefault = pools.isEmpty
        let path = try socket ?? Self.defaultSocket()
        guard let program = Self.find(python) else {
            throw ValidationError("no Python called \(python) was found; install python3 or name one with --python")
        }
        var policy = PoolPolicy()
        policy.workers = workers
        policy.maximumWorkers = max(policy.maximumWorkers, workers)
        policy.window = window
        policy.defaultBudget = UInt64(budget * 1e9)
        policies.apply(to: &policy)
        let package = Self.packageFolder()
        let searched = pythonPath + (package.map { [$0] } ?? [])
        var configured: [PoolConfiguration] = []
        for text in isDefault ? try Self.examples(package) : pools {
            let (name, module) = try Self.parse(text)
            guard !configured.contains(where: { $0.name == name }) else { throw ValidationError("pool \(name) is given twice") }
            configured.append(
                PoolConfiguration(name: name, module: module, python: program, pythonPath: searched, usesTemplate: template == .on, policy: policy))
        }
        let configuration = Configuration(socketPath: path, controlPath: control ?? path + ".control", pools: configured)
        if isDefault {
            print(
                """
                poold \(PooldVersion.text) serves the example pools on \(path). Try, in another shell:

                  poolctl --socket \(path) call text.summarize '{"text": "One. Two is longer. Three is the longest.", "sentences": 1}'
                  poolctl --socket \(path) call vectors.nearest '{"query": [1, 0], "vectors": [[0, 1], [2, 0.1]], "count": 1}'
                  poolctl --socket \(path) status

                Ctrl-C ends it.
                """)
            fflush(nil)
        }
        do { try Daemon.run(configuration, log: log) } catch {
            log.critical("cannot start", metadata: ["reason": "\(error)"])
            throw ExitCode(69)
        }
    }

    /// NAME=MODULE, checked.
    static func parse(_ text: String) throws -> (String, String) {
        guard let equals = text.firstIndex(of: "="), equals != text.startIndex else {
            throw ValidationError("--pool \(text) must look like NAME=MODULE, for example text=/srv/text.py")
        }
        let name = String(text[..<equals])
        let module = String(text[text.index(after: equals)...])
        guard !module.isEmpty else { throw ValidationError("--pool \(text) names no module after the =") }
        guard name.utf8.count <= 64,
            name.utf8.allSatisfy({ $0 == 0x2D || $0 == 0x5F || (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) })
        else {
            throw ValidationError("pool name \(name) may have up to 64 letters, digits, - and _")
        }
        if module.hasSuffix(".py") {
            guard let resolved = realpath(module, nil) else { throw ValidationError("pool \(name): the file \(module) does not exist") }
            defer { free(resolved) }
            return (name, String(cString: resolved))
        }
        return (name, module)
    }

    /// The example pools of the source tree.
    static func examples(_ package: String?) throws -> [String] {
        guard let package, access(package + "/examples/text.py", R_OK) == 0 else {
            throw ValidationError("no pool is configured and the example pools are not installed beside poold; give --pool NAME=MODULE")
        }
        return ["text=\(package)/examples/text.py", "vectors=\(package)/examples/vectors.py"]
    }

    /// The Python package in the source tree that this executable was built from, if it was.
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

    static func find(_ program: String) -> String? {
        if program.contains("/") { return access(program, X_OK) == 0 ? program : nil }
        guard let path = getenv("PATH") else { return nil }
        for folder in String(cString: path).split(separator: ":") where access("\(folder)/\(program)", X_OK) == 0 { return "\(folder)/\(program)" }
        return nil
    }

    static func defaultSocket() throws -> String {
        let folder: String
        if let runtime = getenv("XDG_RUNTIME_DIR"), access(runtime, W_OK) == 0 {
            folder = String(cString: runtime) + "/poold"
        } else {
            folder = "/tmp/poold-\(getuid())"
        }
        var status = stat()
        if mkdir(folder, 0o700) != 0 && errno != EEXIST {
            throw ValidationError("cannot make \(folder): \(String(cString: strerror(errno))); name a socket with --socket")
        }
        // A folder in /tmp that another user made would let them answer in our place.
        guard lstat(folder, &status) == 0, status.st_uid == getuid(), status.st_mode & S_IFMT == S_IFDIR else {
            throw ValidationError("\(folder) belongs to another user; name a socket with --socket")
        }
        return folder + "/poold.sock"
    }
}
