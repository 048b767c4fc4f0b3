package import PoolCore

/// One pool as configured.
package struct PoolConfiguration: Sendable {
    package var name: String
    /// A dotted module or a path to a .py file.
    package var module: String
    package var python: String
    /// Put in front of PYTHONPATH, in order.
    package var pythonPath: [String]
    /// Fork workers from a process that has imported the module; otherwise each starts from nothing.
    package var usesTemplate: Bool
    package var policy: PoolPolicy

    package init(name: String, module: String, python: String, pythonPath: [String] = [], usesTemplate: Bool = true, policy: PoolPolicy = PoolPolicy()) {
        self.name = name
        self.module = module
        self.python = python
        self.pythonPath = pythonPath
        self.usesTemplate = usesTemplate
        self.policy = policy
    }
}

/// What the daemon runs, as plain values.
package struct Configuration: Sendable {
    package var socketPath: String
    package var controlPath: String
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
    package var shutdownLimit: UInt64 = 30_000_000_000

    package init(socketPath: String, controlPath: String, pools: [PoolConfiguration]) {
        self.socketPath = socketPath
        self.controlPath = controlPath
        self.pools = pools
    }
}
