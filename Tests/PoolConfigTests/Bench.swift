import Glibc
import PoolConfig

/// A folder of files to load from; removed at the end.
final class Bench {
    let folder: String

    init() {
        var template = Array("/tmp/poold-config-XXXXXX".utf8CString)
        folder = String(cString: mkdtemp(&template)!)
        write("text.py", "")
    }

    deinit {
        for name in ["pools.d", ""] {
            let path = name.isEmpty ? folder : "\(folder)/\(name)"
            guard let stream = opendir(path) else { continue }
            while let entry = readdir(stream) {
                let file = withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
                unlink("\(path)/\(file)")
            }
            closedir(stream)
            rmdir(path)
        }
    }

    func write(_ name: String, _ text: String) { write(name, Array(text.utf8)) }

    func write(_ name: String, _ bytes: [UInt8]) {
        if name.hasPrefix("pools.d/") { mkdir("\(folder)/pools.d", 0o700) }
        let file = open("\(folder)/\(name)", O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            guard count > 0 else { break }
            rest = rest.dropFirst(count)
        }
        close(file)
    }

    func load(_ text: String? = nil) -> ConfigurationResult {
        if let text { write("poold.yaml", text) }
        return ConfigurationSource(file: "\(folder)/poold.yaml").load()
    }

    /// Its problems, each with the folder cut off.
    func problems(_ text: String? = nil) -> [String] {
        guard case .refused(let problems) = load(text) else { return [] }
        return problems.map { problem in
            var problem = problem
            if problem.place.file.hasPrefix(folder + "/") { problem.place.file.removeFirst(folder.utf8.count + 1) }
            if let range = problem.hint.firstRange(of: folder + "/") { problem.hint.removeSubrange(range) }
            return "\(problem)"
        }
    }

    func loaded(_ text: String? = nil) -> LoadedConfiguration? {
        guard case .loaded(let loaded) = load(text) else { return nil }
        return loaded
    }
}

extension LoadedConfiguration {
    func value(_ key: String) -> String? { values.first { $0.key == key }?.value }
    func origin(_ key: String) -> String? { values.first { $0.key == key }?.origin }
}
