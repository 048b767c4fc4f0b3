import CPoold
import Glibc

/// Who of this run is alive, from /proc alone.
struct ProcessCensus {
    /// Everything that the run starts carries it in its environment. Not POOLD_…: poold keeps such names from its workers.
    static let variable = "CHAOS_RUN"

    struct Member {
        var pid: Int32
        var parent: Int32
        var state: UInt8
        var name: String
    }
    var members: [Member] = []
    /// Children of poold that ended and were not reaped.
    var zombies = 0

    init(marker: String, poold: Int32) {
        let wanted = Array("\(Self.variable)=\(marker)".utf8)
        guard let folder = opendir("/proc") else { return }
        defer { closedir(folder) }
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
            guard let pid = Int32(name) else { continue }
            let environment = Self.contents("/proc/\(pid)/environ", limit: 65_536)
            if environment.isEmpty {
                if let member = Self.member(pid), member.state == UInt8(ascii: "Z"), member.parent == poold { zombies += 1 }
                continue
            }
            guard Self.contains(environment, wanted), let member = Self.member(pid) else { continue }
            members.append(member)
        }
    }

    private static func member(_ pid: Int32) -> Member? {
        let text = String(decoding: contents("/proc/\(pid)/stat", limit: 4096), as: UTF8.self)
        guard let open = text.firstIndex(of: "("), let close = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: close)...].split(separator: " ")
        guard fields.count > 1, let state = fields[0].utf8.first, let parent = Int32(fields[1]) else { return nil }
        return Member(pid: pid, parent: parent, state: state, name: String(text[text.index(after: open)..<close]))
    }

    private static func contains(_ bytes: [UInt8], _ wanted: [UInt8]) -> Bool {
        // One entry after the other, each ended by a 0.
        bytes.split(separator: 0).contains { $0.elementsEqual(wanted) }
    }

    static func contents(_ path: String, limit: Int) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return [] }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: limit)
        let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        return Array(buffer[0..<max(0, count)])
    }

    static func descriptors(_ pid: Int32) -> Int {
        guard let folder = opendir("/proc/\(pid)/fd") else { return 0 }
        defer { closedir(folder) }
        var count = 0
        while let entry = readdir(folder) { if entry.pointee.d_name.0 != CChar(UInt8(ascii: ".")) { count += 1 } }
        return count
    }

    /// What its descriptors lead to, counted, numbers left out: says what leaked.
    static func descriptorKinds(_ pid: Int32) -> [String: Int] {
        guard let folder = opendir("/proc/\(pid)/fd") else { return [:] }
        defer { closedir(folder) }
        var kinds: [String: Int] = [:]
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
            var target = [UInt8](repeating: 0, count: 256)
            let count = target.withUnsafeMutableBytes { readlink("/proc/\(pid)/fd/\(name)", $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count) }
            guard count > 0 else { continue }
            kinds[String(String(decoding: target[0..<count], as: UTF8.self).filter { !$0.isNumber }), default: 0] += 1
        }
        return kinds
    }

    static func threads(_ pid: Int32) -> Int {
        for line in String(decoding: contents("/proc/\(pid)/status", limit: 8192), as: UTF8.self).split(separator: "\n") where line.hasPrefix("Threads:") {
            return Int(line.split(whereSeparator: { $0 == " " || $0 == "\t" })[1]) ?? 0
        }
        return 0
    }
}
