import ArgumentParser
import PoolConfig

/// Options of `serve` that stand for keys of the configuration, over what the file says. Their ranges are the keys'.
struct ServeOptions: ParsableArguments {
    enum Switch: String, ExpressibleByArgument, CaseIterable { case on, off }
    enum AffinityName: String, ExpressibleByArgument, CaseIterable { case none, prefer, require }
    enum OverloadName: String, ExpressibleByArgument, CaseIterable {
        case refuse, codel
        case newestFirst = "newest-first"
    }
    enum OverrunName: String, ExpressibleByArgument, CaseIterable { case cancel, replace, finish }

    @Option(help: ArgumentHelp("Socket for callers. Default: $XDG_RUNTIME_DIR/poold/poold.sock or /tmp/poold-UID/poold.sock.", valueName: "path"))
    var socket: String?

    @Option(help: ArgumentHelp("Socket for poolctl. Default: the callers' with .control after it.", valueName: "path"))
    var control: String?

    @Option(help: ArgumentHelp("trace, debug, info, notice, warning or error. Default: info.", valueName: "level"))
    var logLevel: String?

    enum LogFormatName: String, ExpressibleByArgument, CaseIterable { case text, json }
    @Option(help: "Form of the log: text for people (default), or json, one object a line for programs.")
    var logFormat: LogFormatName?

    @Option(help: ArgumentHelp("Workers of each pool, 0 to 448. Default: 2.", valueName: "count"))
    var workers: String?

    @Option(help: ArgumentHelp("Python to run workers with: a path or a name on PATH. Default: python3.", valueName: "program"))
    var python: String?

    @Option(help: ArgumentHelp("Folder to put on the workers' module path. Repeat for more.", valueName: "folder"))
    var pythonPath: [String] = []

    @Option(
        help: ArgumentHelp("Fork workers from a process that has imported the module (on), or start each from nothing (off). Default: on.", valueName: "on|off")
    )
    var template: Switch?

    @Option(help: ArgumentHelp("Calls a worker may hold, running and sent ahead, 1 to 64. 1 sends nothing ahead. Default: 16.", valueName: "calls"))
    var window: String?

    @Option(help: ArgumentHelp("Budget of a call that names none. Default: 60s.", valueName: "span"))
    var budget: String?

    @Option(help: "Where calls of a session go: any worker (default), preferably its last one, or only that one.")
    var affinity: AffinityName?

    @Option(help: ArgumentHelp("A session unused for so long is forgotten; 0: never. Default: 15m.", valueName: "span"))
    var sessionTimeToLive: String?

    @Option(help: "Under overload: refuse what cannot meet its budget (default); also shed the oldest by CoDel; or serve the newest first.")
    var overload: OverloadName?

    @Option(help: "A call outran its budget: interrupt it (default), also replace its worker, or let it finish unheard.")
    var overrun: OverrunName?

    @Option(help: ArgumentHelp("How long import and set-up of a worker may take. Default: 60s.", valueName: "span"))
    var startTimeout: String?

    @Option(help: ArgumentHelp("A worker that does not return from an interrupted call within this is replaced. Default: 5s.", valueName: "span"))
    var hangAfter: String?

    @Option(help: ArgumentHelp("Calls that may wait in a pool, 0 to 4,194,304. Default: 32,768.", valueName: "calls"))
    var queue: String?

    @Option(help: ArgumentHelp("Replace a worker after so many calls, ± 10 %; 0: never (default).", valueName: "calls"))
    var recycleCalls: String?

    @Option(help: ArgumentHelp("Replace a worker at this age, ± 10 %; 0: never (default).", valueName: "span"))
    var recycleAge: String?

    @Option(
        help: ArgumentHelp("Replace a worker whose private memory exceeds this, looked at every --measure; 0: never (default).", valueName: "MiB"))
    var recycleMemory: String?

    @Option(help: ArgumentHelp("Between looks at a worker's memory. Default: 30s.", valueName: "span"))
    var measure: String?

    @Option(help: ArgumentHelp("Between health checks of an idle worker; 0: none. Default: 10s.", valueName: "span"))
    var health: String?

    @Option(help: ArgumentHelp("Worker deaths in a row that open the circuit breaker; 0: never. Default: 5.", valueName: "deaths"))
    var circuit: String?

    @Option(help: ArgumentHelp("Deaths with the same method and body that put it in quarantine; 0: never. Default: 2.", valueName: "deaths"))
    var quarantine: String?

    /// The keys that were given. Spans without a unit are seconds, there as here.
    var overrides: [ConfigurationOverride] {
        let given: [(key: String, value: String?, option: String)] = [
            ("daemon.socket", socket, "--socket"),
            ("daemon.control_socket", control, "--control"),
            ("log.level", logLevel, "--log-level"),
            ("log.format", logFormat?.rawValue, "--log-format"),
            ("workers", workers, "--workers"),
            ("python", python, "--python"),
            ("template", template?.rawValue, "--template"),
            ("prefetch.max_calls", window, "--window"),
            ("budget.default", budget, "--budget"),
            ("sessions.affinity", affinity?.rawValue, "--affinity"),
            ("sessions.time_to_live", sessionTimeToLive, "--session-time-to-live"),
            ("overload.policy", overload.map { $0 == .newestFirst ? "newest_first" : $0.rawValue }, "--overload"),
            ("overrun.policy", overrun?.rawValue, "--overrun"),
            ("lifecycle.start_timeout", startTimeout, "--start-timeout"),
            ("overrun.hang_after", hangAfter, "--hang-after"),
            ("queue.max_calls", queue, "--queue"),
            ("recycle.max_calls", recycleCalls, "--recycle-calls"),
            ("recycle.max_age", recycleAge, "--recycle-age"),
            // In MiB since before sizes had units here.
            ("recycle.max_memory", recycleMemory.map { $0.utf8.allSatisfy { (0x30...0x39).contains($0) } ? $0 + "MiB" : $0 }, "--recycle-memory"),
            ("recycle.measure_interval", measure, "--measure"),
            ("health.interval", health, "--health"),
            ("circuit.failures", circuit, "--circuit"),
            ("quarantine.deaths", quarantine, "--quarantine"),
        ]
        var overrides = given.compactMap { item in item.value.map { ConfigurationOverride(item.key, $0, option: item.option) } }
        if !pythonPath.isEmpty { overrides.append(ConfigurationOverride("python_path", list: pythonPath, option: "--python-path")) }
        return overrides
    }
}
