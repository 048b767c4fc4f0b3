import Glibc

/// A file read whole, if it is what a configuration can be.
enum TextFile {
    static let maximumBytes = 1 << 20

    static func read(_ path: String) -> Result<String, ConfigurationProblem> {
        let place = Place(file: path)
        // Without O_NONBLOCK a FIFO of that name would hold poold up for ever.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return .failure(unreadable(place, errno)) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return .failure(unreadable(place, errno)) }
        switch status.st_mode & S_IFMT {
        case S_IFREG: break
        case S_IFDIR: return .failure(ConfigurationProblem(place, found: "a directory", allowed: "a YAML file", hint: "name the file in it"))
        default: return .failure(ConfigurationProblem(place, found: "something that is not a regular file", allowed: "a YAML file"))
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(min(Int(status.st_size), maximumBytes) + 1)
        var piece = [UInt8](repeating: 0, count: 65_536)
        while bytes.count <= maximumBytes {
            let count = Glibc.read(descriptor, &piece, piece.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { return .failure(unreadable(place, errno)) }
            if count == 0 { break }
            bytes += piece[..<count]
        }
        guard bytes.count <= maximumBytes else {
            return .failure(ConfigurationProblem(place, found: "more than \(SizeText.text(UInt64(maximumBytes)))", allowed: "at most that much YAML"))
        }
        return text(bytes, place)
    }

    static func text(_ bytes: [UInt8], _ place: Place) -> Result<String, ConfigurationProblem> {
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) || bytes.starts(with: [0xFE, 0xFF]) || bytes.starts(with: [0xFF, 0xFE]) {
            return .failure(
                ConfigurationProblem(
                    Place(file: place.file, line: 1), found: "a byte-order mark", allowed: "UTF-8 without one", hint: "save the file again as plain UTF-8"))
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            // The first line whose bytes are not UTF-8.
            var line = 1
            for part in bytes.split(separator: 0x0A, omittingEmptySubsequences: false) {
                if String(validating: part, as: UTF8.self) == nil { break }
                line += 1
            }
            return .failure(ConfigurationProblem(Place(file: place.file, line: line), found: "bytes that are not UTF-8", allowed: "UTF-8"))
        }
        return .success(text)
    }

    private static func unreadable(_ place: Place, _ error: Int32) -> ConfigurationProblem {
        switch error {
        case ENOENT: ConfigurationProblem(place, found: "no such file")
        case EACCES: ConfigurationProblem(place, found: "no permission to read it", hint: "check its owner and mode, and those of its folder")
        case EISDIR: ConfigurationProblem(place, found: "a directory", allowed: "a YAML file")
        default: ConfigurationProblem(place, found: "an unreadable file: \(String(cString: strerror(error)))")
        }
    }
}
