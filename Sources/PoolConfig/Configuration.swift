package import PoolCore

/// What the daemon runs, as plain values. `ConfigurationFile` makes one from YAML; the defaults here are the reference's.
package struct Configuration: Sendable, Equatable {
    package static let maximumPools = 256

    /// The file that it was read from; nil: the embedded default, or options alone.
    package var file: String?
    /// Callers connect here.
    package var socketPath: String
    /// Mode of the callers' socket: who may connect at all. `callers` of a pool say who may call what.
    package var socketMode: Int32 = 0o666
    /// `poolctl` connects here; anybody may connect, `roles` say who may do what.
    package var controlPath: String
    package var roles = Roles()
    package var log = LogConfiguration()
    package var pools: [PoolConfiguration]
    /// Workers of all pools that may be starting at once.
    package var startingAtOnce = 4
    /// Calls in flight on one connection, 1 to 65,535.
    package var callsPerConnection = 1024
    /// Largest body in bytes, either way.
    package var largestBody = 64 << 20
    /// Bytes of bodies of one connection that may wait before it is read no further.
    package var heldBytesPerConnection = 64 << 20
    /// Bytes of replies that a client may leave unread before its calls are read no further.
    package var unreadBytesPerConnection = 8 << 20
    /// Bytes of replies left unread at which a client is let go.
    package var unreadBytesToClose = 256 << 20
    package var maximumConnections = 65_536
    /// How long SIGTERM waits for calls in flight, ns.
    package var shutdownLimit: Nanoseconds = 30_000_000_000
    /// How long callers are kept waiting for the first workers after the start, ns.
    package var startupLimit: Nanoseconds = 10_000_000_000
    package var canary = CanaryMode.auto

    package init(socketPath: String, controlPath: String, pools: [PoolConfiguration]) {
        self.socketPath = socketPath
        self.controlPath = controlPath
        self.pools = pools
    }
}

/// One pool as configured.
package struct PoolConfiguration: Sendable, Equatable {
    /// Up to 64 letters, digits, - and _.
    package var name: String
    /// A dotted module or a path to a .py file.
    package var module: String
    package var python: String
    /// Put in front of PYTHONPATH, in order.
    package var pythonPath: [String]
    /// Added to poold's own environment, in order of their names.
    package var environment: [String: String] = [:]
    /// Working directory of its workers; nil: poold's own.
    package var directory: String?
    /// Fork workers from a process that has imported the module; otherwise each starts from nothing.
    package var usesTemplate: Bool
    package var policy: PoolPolicy
    /// Run by each worker before it is ready, in order, and by `poolctl warm`.
    package var warm: [WarmCommand] = []
    /// How long one warming command may take, ns.
    package var warmCommandTimeout: Nanoseconds = 10_000_000_000
    /// Who may call it, in addition to `roles.operate`.
    package var callers: [Principal] = [.everyone]
    /// poold's own, for the watchdog: callers do not see it.
    package var isReserved = false
    /// Every caller may call it.
    package var isOpen: Bool { callers.contains(.everyone) && !isReserved }

    /// `max_workers` where nobody names it.
    package static func defaultMaximumWorkers(workers: Int) -> Int { max(PoolPolicy().maximumWorkers, workers) }

    /// Whether workers of the old configuration must be replaced to follow this one.
    package func needsNewWorkers(after old: PoolConfiguration) -> Bool {
        module != old.module || python != old.python || pythonPath != old.pythonPath || environment != old.environment || directory != old.directory
            || usesTemplate != old.usesTemplate || warm != old.warm || warmCommandTimeout != old.warmCommandTimeout
    }

    package init(name: String, module: String, python: String, pythonPath: [String] = [], usesTemplate: Bool = true, policy: PoolPolicy = PoolPolicy()) {
        self.name = name
        self.module = module
        self.python = python
        self.pythonPath = pythonPath
        self.usesTemplate = usesTemplate
        self.policy = policy
    }
}

/// Something that a worker does before callers pay for it.
package enum WarmCommand: Sendable, Equatable {
    /// Call one of the pool's own methods with these arguments (JSON; of a method with codec bytes: a string, as UTF-8).
    case call(method: String, arguments: String)
    /// Import a dotted module.
    case module(String)
    /// Run a Python file in the worker.
    case script(String)
}

/// Users and groups, by SO_PEERCRED and SO_PEERGROUPS.
package enum Principal: Sendable, Hashable {
    case everyone
    case user(UInt32)
    case group(UInt32)
}

/// Who may do what on the control socket. root and poold's own user may do everything.
package struct Roles: Sendable, Equatable {
    /// See status, stats, calls, events …
    package var look: [Principal] = []
    /// Change something; implies `look` and calling every pool.
    package var operate: [Principal] = []
    package init() {}
}

package struct LogConfiguration: Sendable, Equatable {
    package enum Format: String, Sendable, CaseIterable { case text, json }
    /// trace, debug, info, notice, warning, error
    package var level = "info"
    package var format = Format.text
    /// Lines a second that may be written, with ten times as many at once; what is more is counted. 0: no limit.
    package var linesPerSecond = 1000
    /// The same for the output of each worker.
    package var workerLinesPerSecond = 100
    package init() {}
}

extension Configuration {
    /// The name of the pool of poold's own that feeds the watchdog.
    package static let canaryPool = "poold-canary"
}

/// Whether a reserved worker answers a call before the watchdog is fed.
package enum CanaryMode: String, Sendable, CaseIterable {
    /// Where systemd watches.
    case auto
    case on
    case off
}
