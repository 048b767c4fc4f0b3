import CPoold
import Glibc
import PoolClient
import PoolConfig
import PoolProtocol

/// The sockets' paths and folders, and whether a poold answers there.
enum SocketCheck {
    static let longestPath = 107

    static func findings(_ common: Common, _ configuration: Configuration?) -> [Finding] {
        let running = running(common)
        let path = common.socket ?? configuration?.socketPath ?? SocketPlaces.callers(common).first { isUsable($0.path) }?.path ?? ""
        guard !path.isEmpty else { return [running] }
        var list: [Finding] = []
        let control = common.control ?? configuration?.controlPath ?? path + ".control"
        let longest = max(path.utf8.count, control.utf8.count)
        list.append(
            longest <= longestPath
                ? .ok("sockets", "path", path)
                : .fail(
                    "sockets", "path", "\(path) and its control socket have up to \(longest) bytes", costs: "poold cannot start: a socket's path may have 107",
                    advice: "choose a shorter --socket"))
        list.append(folder(path))
        return list + [running]
    }

    private static func parent(_ path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// A place that is there, or could be made.
    private static func isUsable(_ path: String) -> Bool {
        let folder = parent(path)
        return access(folder, W_OK) == 0 || access(parent(folder), W_OK) == 0
    }

    private static func folder(_ path: String) -> Finding {
        let folder = parent(path)
        var status = stat()
        guard stat(folder, &status) == 0 else {
            return access(parent(folder), W_OK) == 0
                ? .ok("sockets", "folder", "\(folder) will be made")
                : .warn(
                    "sockets", "folder", "\(folder) does not exist", costs: "poold cannot listen there unless systemd makes it (RuntimeDirectory=)",
                    advice: "mkdir \(folder), owned by poold's user")
        }
        let mode = status.st_mode & 0o7777
        let found = "\(folder), user \(status.st_uid), mode \(String(mode, radix: 8))"
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return .fail(
                "sockets", "folder", found, costs: "anybody can put a socket of their own in poold's place and read what callers send",
                advice: "chmod o-w \(folder)")
        }
        if access(folder, W_OK) != 0 {
            return .warn(
                "sockets", "folder", found, costs: "this user cannot start poold there", advice: "run doctor as poold's user to see what it sees")
        }
        return .ok("sockets", "folder", found)
    }

    private static func running(_ common: Common) -> Finding {
        do throws(PoolError) {
            let status = try common.status()
            let sick = status.pools.filter { $0.health == "unavailable" || $0.health == "degraded" }
            let found = "version \(status.version.version), pid \(status.version.pid), \(Format.count(status.pools.count, "pool"))"
            guard sick.isEmpty else {
                return .warn(
                    "sockets", "running poold", "\(found); \(sick.map { "\($0.name) is \($0.health)" }.joined(separator: ", "))",
                    costs: "calls of these pools wait or are refused", advice: "poolctl status")
            }
            return .ok("sockets", "running poold", found)
        } catch {
            if error.message.contains("no such socket") || error.message.contains("no poold was found") {
                return .ok("sockets", "running poold", "none")
            }
            return .warn("sockets", "running poold", error.message, costs: "it cannot be operated from here", advice: "see the message")
        }
    }
}
