import Glibc
import PoolClient

/// Where poold's sockets may be, in the order in which they are tried.
enum SocketPlaces {
    struct Place {
        var path: String
        /// Nobody named it: the next may be tried, and its folder must be one that a stranger cannot have made.
        var isGuess: Bool
    }

    static func callers(_ common: Common) -> [Place] {
        if let socket = common.socket { return [Place(path: socket, isGuess: false)] }
        if let control = common.control, control.hasSuffix(".control") { return [Place(path: String(control.dropLast(8)), isGuess: false)] }
        if let named = variable("POOLD_SOCKET") { return [Place(path: named, isGuess: false)] }
        return guesses
    }

    static func control(_ common: Common) -> [Place] {
        if let control = common.control { return [Place(path: control, isGuess: false)] }
        if let socket = common.socket { return [Place(path: socket + ".control", isGuess: false)] }
        if let named = variable("POOLD_CONTROL") { return [Place(path: named, isGuess: false)] }
        if let named = variable("POOLD_SOCKET") { return [Place(path: named + ".control", isGuess: false)] }
        return guesses.map { Place(path: $0.path + ".control", isGuess: true) }
    }

    /// The places where poold listens when nobody says otherwise.
    static var guesses: [Place] {
        var paths: [String] = []
        if let runtime = variable("XDG_RUNTIME_DIR") { paths.append(runtime + "/poold/poold.sock") }
        paths += ["/run/poold/poold.sock", "/tmp/poold-\(getuid())/poold.sock"]
        return paths.map { Place(path: $0, isGuess: true) }
    }

    private static func variable(_ name: String) -> String? {
        guard let value = getenv(name), value.pointee != 0 else { return nil }
        return String(cString: value)
    }

    /// The first place that answers; the error names every one and what is wrong there.
    static func first<Result>(_ places: [Place], _ open: (String) throws(PoolError) -> Result) throws(PoolError) -> Result {
        var found: PoolError?
        for place in places {
            if place.isGuess {
                guard access(place.path, F_OK) == 0 else { continue }
                if let owner = strangeOwner(place.path) {
                    found = PoolError(
                        status: "connection", message: "\(place.path) was made by user \(owner), who is not trusted; name the socket with --socket")
                    continue
                }
            }
            do throws(PoolError) { return try open(place.path) } catch {
                guard place.isGuess, error.status == "connection" else { throw error }
                found = error
            }
        }
        if let found { throw found }
        throw PoolError(
            status: "connection",
            message: "no poold was found. Looked for: \(places.map(\.path).joined(separator: ", ")).\n"
                + "Start it (`make run`, `poold serve`), or name its socket with --socket or $POOLD_SOCKET.")
    }

    /// The owner of the socket's folder in /tmp, if that is neither us nor root: what listens there may be anybody.
    private static func strangeOwner(_ path: String) -> UInt32? {
        guard path.hasPrefix("/tmp/"), let slash = path.lastIndex(of: "/") else { return nil }
        var status = stat()
        guard lstat(String(path[..<slash]), &status) == 0 else { return nil }
        return status.st_uid == getuid() || status.st_uid == 0 ? nil : status.st_uid
    }
}
