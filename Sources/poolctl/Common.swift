import ArgumentParser
import Glibc
import PoolClient
import PoolProtocol
import SwiftProtobuf

/// "5s", "200ms", "1.5", "2m": what people write for a span.
struct Span: ExpressibleByArgument {
    var duration: Duration
    var nanoseconds: UInt64 { UInt64(duration.components.seconds) * 1_000_000_000 + UInt64(duration.components.attoseconds / 1_000_000_000) }

    init(_ duration: Duration) { self.duration = duration }

    init?(argument: String) {
        let units: [(String, Double)] = [("ms", 1e-3), ("us", 1e-6), ("s", 1), ("m", 60), ("h", 3600), ("", 1)]
        for (suffix, factor) in units where argument.hasSuffix(suffix) {
            guard let value = Double(argument.dropLast(suffix.count)), value > 0, value * factor <= 86_400 else { continue }
            duration = .nanoseconds(Int64(value * factor * 1e9))
            return
        }
        return nil
    }

    static let form = "like 5s, 200ms or 2m, up to 24h"
}

extension ColourChoice: ExpressibleByArgument {}

/// Where poold is, and how to answer.
struct Common: ParsableArguments {
    @Option(
        help: ArgumentHelp("poold's socket for callers. Default: $POOLD_SOCKET, then the usual places.", valueName: "path"), completion: .file())
    var socket: String?

    @Option(
        help: ArgumentHelp("poold's control socket. Default: $POOLD_CONTROL, then the socket's path with .control.", valueName: "path"), completion: .file())
    var control: String?

    @Option(
        help: ArgumentHelp(
            "How long poold may take to answer. Default: 5s; stack 15s; reload 30s; call, methods and ping 15s to connect.", valueName: "span"))
    var waitFor: Span?

    @Flag(help: "Machine-readable output, see docs/poolctl-json.md.")
    var json = false

    @Option(help: ArgumentHelp("auto, always or never.", valueName: "when"))
    var color = ColourChoice.auto

    static let answerLimit = Duration.seconds(5)
    /// poold keeps its first callers waiting while it starts, 10 s at the latest.
    static let greetingLimit = Duration.seconds(15)

    var style: Style { Style.detect(color) }

    // MARK: - Connecting

    /// A connection to the callers' socket.
    func connect() throws(PoolError) -> PoolConnection {
        let limit = waitFor?.duration ?? Self.greetingLimit
        return try SocketPlaces.first(SocketPlaces.callers(self)) { path throws(PoolError) in try PoolConnection(path: path, greets: true, answerLimit: limit) }
    }

    /// A connection to the control socket.
    func connectControl(limit: Duration? = nil) throws(PoolError) -> PoolConnection {
        let limit = waitFor?.duration ?? limit ?? Self.answerLimit
        return try SocketPlaces.first(SocketPlaces.control(self)) { path throws(PoolError) in try PoolConnection(path: path, greets: false, answerLimit: limit)
        }
    }

    // MARK: - Operations

    /// One operation with its messages. `pool`, where one is meant, is what a wrong name is compared with.
    func ask<Reply: Message>(
        _ operation: Poold_V1_Operation, _ request: (any Message)? = nil, pool: String? = nil, limit: Duration? = nil, as _: Reply.Type = Reply.self
    ) throws(PoolError) -> Reply {
        let connection = try connectControl(limit: limit)
        return try ask(operation, request, pool: pool, on: connection)
    }

    /// The same on a connection that stays open.
    func ask<Reply: Message>(_ operation: Poold_V1_Operation, _ request: (any Message)? = nil, pool: String? = nil, on connection: PoolConnection)
        throws(PoolError) -> Reply
    {
        do throws(PoolError) {
            let body: [UInt8]
            do { body = try request?.serializedBytes() ?? [] } catch { throw PoolError(status: "internal", message: "the request cannot be encoded: \(error)") }
            let reply = try connection.control(UInt16(operation.rawValue), body, changes: operation.changes)
            do { return try Reply(serializedBytes: reply) } catch {
                let done = operation.changes ? "; what was asked for may have been done" : ""
                throw PoolError(
                    status: operation.changes ? "internal" : "connection",
                    message: "what answers at \(connection.path) is not a poold that poolctl understands; compare their versions\(done)")
            }
        } catch {
            // The named worker has gone between the look at the table and the request.
            if error.status == "bad_arguments", let named = request as? Poold_V1_PoolRequest, named.generation != 0 {
                throw PoolError(status: "not_found", message: error.message)
            }
            guard error.status == "no_such_pool", let pool else { throw error }
            throw Self.suggesting(error, pool, among: (try? poolNames(connection)) ?? [])
        }
    }

    func status() throws(PoolError) -> Poold_V1_Status { try ask(.status) }

    /// Looks after something was asked for and granted. That poold goes away meanwhile is not `connection`, which says that nothing was done.
    static func afterwards<Result>(_ look: () throws(PoolError) -> Result) throws(PoolError) -> Result {
        do throws(PoolError) { return try look() } catch {
            guard error.status == "connection" else { throw error }
            throw PoolError(status: "worker_lost", message: "\(error.message); what was asked for earlier was begun")
        }
    }

    private func poolNames(_ connection: PoolConnection) throws -> [String] {
        try Poold_V1_Status(serializedBytes: try connection.control(UInt16(Poold_V1_Operation.status.rawValue), [])).pools.map(\.name)
    }

    /// One pool of a status, or the error that names the nearest.
    static func find(_ name: String, in status: Poold_V1_Status) throws(PoolError) -> Poold_V1_Pool {
        if let pool = status.pools.first(where: { $0.name == name }) { return pool }
        let names = status.pools.map(\.name)
        let error = PoolError(status: "no_such_pool", message: "there is no pool \(name); there are: \(names.joined(separator: ", "))")
        throw suggesting(error, name, among: names)
    }

    static func suggesting(_ error: PoolError, _ name: String, among candidates: [String]) -> PoolError {
        guard let nearest = Nearest.match(name, among: candidates) else { return error }
        var error = error
        error.message += "; did you mean \(nearest)?"
        return error
    }
}

extension Poold_V1_Operation {
    /// Does more than look. What a newer poold adds may, too.
    var changes: Bool {
        switch self {
        case .unspecified, .status, .version, .stats, .calls, .sessions, .stack, .postMortem, .quarantine, .events, .configuration, .warmProgress: false
        case .scale, .recycle, .kill, .drain, .resume, .clearQuarantine, .cancel, .reload, .warm, .UNRECOGNIZED: true
        }
    }
}

/// A pool by its name.
struct PoolArgument: ParsableArguments {
    @Argument(help: "The pool.", completion: Names.pools) var pool: String
}

/// A pool, or all.
struct PoolFilter: ParsableArguments {
    @Argument(help: "Only this pool.", completion: Names.pools) var pool: String?

    var message: Poold_V1_PoolFilter {
        var message = Poold_V1_PoolFilter()
        message.pool = pool ?? ""
        return message
    }

    /// The pools that are meant.
    func select(_ status: Poold_V1_Status) throws(PoolError) -> [Poold_V1_Pool] {
        guard let pool else { return status.pools }
        return [try Common.find(pool, in: status)]
    }
}
