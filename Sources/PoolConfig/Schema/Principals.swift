import Glibc

/// Users and groups by name or number.
enum Principals {
    struct Unknown: Error {
        var reason: String
    }

    static func read(_ text: String) -> Result<Principal, Unknown> {
        if text == "*" { return .success(.everyone) }
        guard text.hasPrefix("@") else {
            if let uid = UInt32(text) { return .success(.user(uid)) }
            guard let uid = user(text) else { return .failure(Unknown(reason: "this machine knows no user \(quoted(text))")) }
            return .success(.user(uid))
        }
        let name = String(text.dropFirst())
        if let gid = UInt32(name) { return .success(.group(gid)) }
        guard let gid = group(name) else { return .failure(Unknown(reason: "this machine knows no group \(quoted(name))")) }
        return .success(.group(gid))
    }

    static func text(_ principal: Principal) -> String {
        switch principal {
        case .everyone: "*"
        case .user(let uid): userName(uid) ?? "\(uid)"
        case .group(let gid): "@" + (groupName(gid) ?? "\(gid)")
        }
    }

    /// The most that an entry of the user database may take; groups with thousands of members are large.
    private static let maximumEntryBytes = 1 << 20

    /// Calls with a buffer that grows until the entry fits.
    private static func withBuffer<Value>(_ look: (UnsafeMutablePointer<CChar>, Int) -> (error: Int32, value: Value?)) -> Value? {
        var bytes = 4096
        while bytes <= maximumEntryBytes {
            let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: bytes)
            defer { buffer.deallocate() }
            let (error, value) = look(buffer, bytes)
            if error != ERANGE { return value }
            bytes *= 4
        }
        return nil
    }

    private static func user(_ name: String) -> UInt32? {
        withBuffer { buffer, count in
            var entry = passwd()
            var found: UnsafeMutablePointer<passwd>?
            let error = getpwnam_r(name, &entry, buffer, count, &found)
            return (error, found.map { $0.pointee.pw_uid })
        }
    }

    private static func group(_ name: String) -> UInt32? {
        withBuffer { buffer, count in
            var entry = Glibc.group()
            var found: UnsafeMutablePointer<Glibc.group>?
            let error = getgrnam_r(name, &entry, buffer, count, &found)
            return (error, found.map { $0.pointee.gr_gid })
        }
    }

    private static func userName(_ uid: UInt32) -> String? {
        withBuffer { buffer, count in
            var entry = passwd()
            var found: UnsafeMutablePointer<passwd>?
            let error = getpwuid_r(uid, &entry, buffer, count, &found)
            return (error, found.map { String(cString: $0.pointee.pw_name) })
        }
    }

    private static func groupName(_ gid: UInt32) -> String? {
        withBuffer { buffer, count in
            var entry = Glibc.group()
            var found: UnsafeMutablePointer<Glibc.group>?
            let error = getgrgid_r(gid, &entry, buffer, count, &found)
            return (error, found.map { String(cString: $0.pointee.gr_name) })
        }
    }
}
