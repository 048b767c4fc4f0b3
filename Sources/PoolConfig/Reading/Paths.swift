import Glibc

/// Paths of a configuration, and what lies there.
package enum Paths {
    struct Reason: Error {
        var text: String
    }

    /// A relative path is one beside the file that names it; one of an option stays relative to where poold was started.
    static func resolved(_ path: String, _ place: Place) -> String {
        guard !path.hasPrefix("/"), !place.isOption else { return path }
        return folder(of: place.file) + path
    }

    /// The folder of a file with a slash at its end, absolute: poold may change its own working directory later, and `show` should say all.
    static func folder(of file: String) -> String {
        let absolute = absolute(file)
        guard let slash = absolute.lastIndex(of: "/") else { return "./" }
        return String(absolute[...slash])
    }

    package static func absolute(_ path: String) -> String {
        guard !path.hasPrefix("/") else { return path }
        guard let current = getcwd(nil, 0) else { return path }
        defer { free(current) }
        let folder = String(cString: current)
        return (folder == "/" ? "" : folder) + "/" + (path.hasPrefix("./") ? String(path.dropFirst(2)) : path)
    }

    /// A readable file, by its real path.
    static func file(_ path: String) -> Result<String, Reason> {
        guard let resolved = realpath(path, nil) else {
            return .failure(Reason(text: errno == ENOENT ? "does not exist" : "cannot be reached: \(String(cString: strerror(errno)))"))
        }
        defer { free(resolved) }
        var status = stat()
        guard stat(resolved, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return .failure(Reason(text: "is not a file")) }
        guard access(resolved, R_OK) == 0 else { return .failure(Reason(text: "may not be read by this user")) }
        return .success(String(cString: resolved))
    }

    static func isFolder(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// An executable file: a path, or a name on PATH.
    package static func program(_ program: String) -> String? {
        if program.contains("/") { return isProgram(program) ? program : nil }
        guard let path = getenv("PATH") else { return nil }
        for folder in String(cString: path).split(separator: ":") where isProgram("\(folder)/\(program)") { return "\(folder)/\(program)" }
        return nil
    }

    private static func isProgram(_ path: String) -> Bool { access(path, X_OK) == 0 && !isFolder(path) }

    /// The Python package in the source tree that this executable was built from, if it was.
    package static func packageFolder() -> String? {
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

    /// The folder of this user's own socket.
    package static func runtimeFolder() -> String {
        if let runtime = getenv("XDG_RUNTIME_DIR"), access(runtime, W_OK) == 0 { return String(cString: runtime) + "/poold" }
        return "/tmp/poold-\(getuid())"
    }

    /// *.yaml of a folder, by name; nil: there is no such folder.
    static func yamlFiles(_ folder: String) -> Result<[String], Reason>? {
        guard let stream = opendir(folder) else { return errno == ENOENT ? nil : .failure(Reason(text: String(cString: strerror(errno)))) }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
            // Editors leave files that begin with a dot.
            if name.hasSuffix(".yaml") && !name.hasPrefix(".") { names.append(name) }
        }
        return .success(names.sorted())
    }
}
