import PoolCore

let second: Nanoseconds = 1_000_000_000
let millisecond: Nanoseconds = 1_000_000
let hour: Nanoseconds = 3_600_000_000_000
/// The longest span of a rule: a year.
let year: Nanoseconds = 8760 * hour

extension ConfigurationKey where Root == Configuration {
    /// Every key outside of pools, in the order of the reference.
    package static let daemon: [ConfigurationKey<Configuration>] = [
        .path(
            "daemon.socket", \.socketPath, "Callers connect here. Default: $XDG_RUNTIME_DIR/poold/poold.sock or /tmp/poold-UID/poold.sock.", .restart,
            example: "/run/poold/poold.sock"),
        .mode("daemon.socket_mode", \.socketMode, "Who may connect at all; `callers` of a pool say who may call what.", .restart),
        .path(
            "daemon.control_socket", \.controlPath, "poolctl connects here. Default: the callers' socket with .control after it.", .restart,
            example: "/run/poold/poold.sock.control"),
        .whole(
            "daemon.starting_at_once", \.startingAtOnce, 1...4096,
            "Workers of all pools that may be starting at once, and beside them as many templates. "
                + "One that takes longer than half of its start_timeout keeps nobody waiting any more."),
        .span("daemon.startup_limit", \.startupLimit, 0...hour, "How long callers are kept waiting for the first workers.", .restart),
        .span("daemon.shutdown_limit", \.shutdownLimit, 0...24 * hour, "How long SIGTERM waits for calls in flight."),
        .choice(
            "daemon.canary", \.canary, CanaryMode.allCases.map { ($0.rawValue, $0) },
            "Whether a reserved worker answers a call before the watchdog is fed; auto: where systemd watches.", .restart),
        .choice(
            "log.level", \.log.level, ["trace", "debug", "info", "notice", "warning", "error"].map { ($0, $0) }, "The least that is logged."),
        .choice("log.format", \.log.format, LogConfiguration.Format.allCases.map { ($0.rawValue, $0) }, "For people, or one JSON object a line."),
        .whole(
            "log.lines_per_second", \.log.linesPerSecond, 0...1_000_000, "More are counted instead of written, after ten times as many at once; 0: no limit."),
        .whole("log.worker_lines_per_second", \.log.workerLinesPerSecond, 0...1_000_000, "The same for the output of each worker."),
        .principals("roles.look", \.roles.look, "Who may see status, stats, calls, events. root and poold's own user always may."),
        .principals("roles.operate", \.roles.operate, "Who may change something; they may look and call every pool too."),
        .whole("limits.max_connections", \.maximumConnections, 1...1_000_000, "Callers' connections at once.", .restart),
        .whole("limits.max_calls_per_connection", \.callsPerConnection, 1...65_535, "Calls in flight on one connection."),
        .size("limits.max_body", \.largestBody, 1 << 10...1 << 30, "Largest body, either way.", .restart),
        .size("limits.max_held_per_connection", \.heldBytesPerConnection, 1 << 16...1 << 36, "Waiting bodies at which a connection is read no further."),
        .size(
            "limits.max_unread_per_connection", \.unreadBytesPerConnection, 1 << 12...1 << 36, "Unread replies at which a client's calls are read no further."),
        .size("limits.max_unread_to_close", \.unreadBytesToClose, 1 << 12...1 << 38, "Unread replies at which a client is let go."),
    ]
}
