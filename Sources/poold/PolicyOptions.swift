import ArgumentParser
import PoolCore

/// What steers the pools beyond their size; the defaults are those of `PoolPolicy`.
struct PolicyOptions: ParsableArguments {
    enum AffinityName: String, ExpressibleByArgument, CaseIterable { case none, prefer, require }
    enum OverloadName: String, ExpressibleByArgument, CaseIterable {
        case refuse, codel
        case newestFirst = "newest-first"
    }
    enum OverrunName: String, ExpressibleByArgument, CaseIterable { case cancel, replace, finish }

    @Option(help: "Where calls of a session go: any worker, preferably its last one, or only that one.")
    var affinity: AffinityName = .none

    @Option(help: ArgumentHelp("A session unused for so long is forgotten.", valueName: "seconds"))
    var sessionTimeToLive = 900.0

    @Option(help: "Under overload: refuse what cannot meet its budget; also shed the oldest by CoDel; or serve the newest first.")
    var overload: OverloadName = .refuse

    @Option(help: "A call outran its budget: interrupt it, also replace its worker, or let it finish unheard.")
    var overrun: OverrunName = .cancel

    @Option(help: ArgumentHelp("How long import and set-up of a worker may take.", valueName: "seconds"))
    var startTimeout = 60.0

    @Option(help: ArgumentHelp("A worker that does not return from an interrupted call within this is replaced.", valueName: "seconds"))
    var hangAfter = 5.0

    @Option(help: ArgumentHelp("Calls that may wait in a pool, 0 to 4,194,304.", valueName: "calls"))
    var queue = 32_768

    @Option(help: ArgumentHelp("Replace a worker after so many calls, ± 10 %; 0: never.", valueName: "calls"))
    var recycleCalls: UInt64 = 0

    @Option(help: ArgumentHelp("Replace a worker at this age, ± 10 %; 0: never.", valueName: "seconds"))
    var recycleAge = 0.0

    @Option(help: ArgumentHelp("Replace a worker whose private memory exceeds this, looked at every --measure seconds; 0: never.", valueName: "MiB"))
    var recycleMemory: UInt64 = 0

    @Option(help: ArgumentHelp("Seconds between looks at a worker's memory.", valueName: "seconds"))
    var measure = 30.0

    @Option(help: ArgumentHelp("Seconds between health checks of an idle worker; 0: none.", valueName: "seconds"))
    var health = 10.0

    @Option(help: ArgumentHelp("Worker deaths in a row that open the circuit breaker; 0: never.", valueName: "deaths"))
    var circuit = 5

    @Option(help: ArgumentHelp("Deaths with the same method and body that put it in quarantine; 0: never.", valueName: "deaths"))
    var quarantine = 2

    func validate() throws {
        for (name, value, least) in [
            ("session-time-to-live", sessionTimeToLive, 0), ("hang-after", hangAfter, 0.001), ("start-timeout", startTimeout, 0.001),
            ("recycle-age", recycleAge, 0), ("measure", measure, 0.01),
            ("health", health, 0),
        ] where value < least || value > 31_536_000 || value.isNaN {
            throw ValidationError("--\(name) \(value) is outside of \(least)…31536000 seconds")
        }
        guard (0...4_194_304).contains(queue) else { throw ValidationError("--queue \(queue) is outside of 0…4194304") }
        guard recycleMemory <= 1 << 24 else { throw ValidationError("--recycle-memory \(recycleMemory) is outside of 0…16777216 MiB") }
        guard circuit >= 0, quarantine >= 0 else { throw ValidationError("--circuit and --quarantine count deaths, from 0") }
    }

    func apply(to policy: inout PoolPolicy) {
        switch affinity {
        case .none: policy.affinity = .none
        case .prefer: policy.affinity = .prefer
        case .require: policy.affinity = .require
        }
        switch overload {
        case .refuse: policy.overload = .refuse
        case .codel: policy.overload = .codel
        case .newestFirst: policy.overload = .newestFirst
        }
        switch overrun {
        case .cancel: policy.overrun = .cancel
        case .replace: policy.overrun = .replace
        case .finish: policy.overrun = .finish
        }
        policy.sessionTimeToLive = Self.nanoseconds(sessionTimeToLive)
        policy.hangAfter = Self.nanoseconds(hangAfter)
        policy.startTimeout = Self.nanoseconds(startTimeout)
        policy.maximumQueuedCalls = queue
        policy.maximumCalls = recycleCalls
        policy.maximumAge = Self.nanoseconds(recycleAge)
        policy.maximumPrivateBytes = recycleMemory << 20
        policy.measureInterval = Self.nanoseconds(measure)
        policy.healthInterval = Self.nanoseconds(health)
        policy.circuitFailures = circuit
        policy.quarantineDeaths = quarantine
    }

    private static func nanoseconds(_ seconds: Double) -> Nanoseconds { Nanoseconds(seconds * 1e9) }
}
