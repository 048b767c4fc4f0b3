import CPoold
import CSystemd
import Glibc

/// Listening sockets that the service manager made for us (sd_listen_fds(3)). They stay its own: poold does not unlink them.
struct ActivatedSockets {
    var callers: Inherited?
    var control: Inherited?

    struct Inherited {
        var descriptor: Int32
        var path: String
    }

    /// Takes the descriptors that were passed, and cleans the environment of them. Which is which says its name
    /// (`FileDescriptorName=callers` or `control`), or its path where it bears a configured one.
    static func take(socketPath: String, controlPath: String) throws(StartError) -> ActivatedSockets {
        var list: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
        let count = sd_listen_fds_with_names(1, &list)
        guard count >= 0 else { throw StartError(description: "LISTEN_FDS cannot be read: \(String(cString: strerror(-count)))") }
        var names: [String] = []
        for place in 0..<Int(count) {
            names.append(list?[place].map { String(cString: $0) } ?? "")
            free(list?[place])
        }
        free(list)
        var sockets = ActivatedSockets()
        for (place, name) in names.enumerated() {
            let descriptor = Int32(SD_LISTEN_FDS_START) + Int32(place)
            let path = try check(descriptor, name)
            let isControl: Bool
            switch (name, path) {
            case ("callers", _): isControl = false
            case ("control", _): isControl = true
            case (_, controlPath): isControl = true
            case (_, socketPath): isControl = false
            default:
                throw StartError(
                    description:
                        "socket activation passed \(path) under the name \(name); poold knows FileDescriptorName=callers and control, "
                        + "or the paths \(socketPath) and \(controlPath)")
            }
            guard (isControl ? sockets.control : sockets.callers) == nil else {
                throw StartError(
                    description: "socket activation passed two sockets for \(isControl ? "control" : "callers"), the second is \(path); "
                        + "give one ListenStream= each")
            }
            let inherited = Inherited(descriptor: descriptor, path: path)
            if isControl { sockets.control = inherited } else { sockets.callers = inherited }
        }
        return sockets
    }

    /// Its path, if it is what we can serve; it is made non-blocking.
    private static func check(_ descriptor: Int32, _ name: String) throws(StartError) -> String {
        guard sd_is_socket_unix(descriptor, Int32(SOCK_STREAM.rawValue), 1, nil, 0) > 0 else {
            throw StartError(
                description: "socket activation passed descriptor \(descriptor) (\(name)), which is not a listening Unix stream socket; "
                    + "use ListenStream=/a/path")
        }
        let flags = fcntl(descriptor, F_GETFL)
        guard flags >= 0, fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0 else {
            throw StartError(description: "descriptor \(descriptor) of socket activation cannot be made non-blocking: \(String(cString: strerror(errno)))")
        }
        var path = [CChar](repeating: 0, count: 128)
        _ = cpoold_socket_path(descriptor, &path, path.count)
        return String(decoding: path.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
