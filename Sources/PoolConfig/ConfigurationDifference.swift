/// One key whose value another configuration changes.
package struct ConfigurationChange: Sendable, Equatable {
    /// Dotted path; of a pool that comes or goes: `pools.NAME`.
    package var key: String
    package var old: String
    package var new: String
    package var effect: ChangeEffect

    package init(key: String, old: String, new: String, effect: ChangeEffect) {
        self.key = key
        self.old = old
        self.new = new
        self.effect = effect
    }
}

package enum ConfigurationDifference {
    package static func changes(from old: LoadedConfiguration, to new: LoadedConfiguration) -> [ConfigurationChange] {
        changes(from: old.values, to: new.values)
    }

    /// What a reload of a running poold would do: its options stay in force over the file.
    package static func changes(of running: [ConfigurationValue], byReloading file: [ConfigurationValue]) -> [ConfigurationChange] {
        let options = running.filter { $0.origin == "option" }
        let overridden = Dictionary(options.map { ($0.key, $0.value) }, uniquingKeysWith: { first, _ in first })
        // Pools of the command line stay; so do sockets that it named, with the control socket's default.
        let own = Set(options.compactMap { value in pool(of: value.key).flatMap { value.key == "pools.\($0).module" ? $0 : nil } })
        var new = file.filter { value in pool(of: value.key).map { !own.contains($0) } ?? true }
        new += running.filter { value in pool(of: value.key).map(own.contains) ?? false }
        // Where nobody named a socket, the one of this user's environment is not poold's.
        let standard = running.filter { $0.origin == "default" && ["daemon.socket", "daemon.control_socket"].contains($0.key) }
        for index in new.indices {
            if new[index].origin == "default", let same = standard.first(where: { $0.key == new[index].key }) { new[index].value = same.value }
            if let value = overridden[new[index].key] { new[index].value = value }
            if new[index].key == "daemon.control_socket", new[index].origin == "default", let socket = overridden["daemon.socket"] {
                new[index].value = overridden[new[index].key] ?? FlowText.scalar(socket + ".control")
            }
        }
        return changes(from: running, to: new)
    }

    /// Keys of poold first, then pools in the order of the new configuration, then pools that go.
    package static func changes(from old: [ConfigurationValue], to new: [ConfigurationValue]) -> [ConfigurationChange] {
        let before = Dictionary(old.map { ($0.key, $0.value) }, uniquingKeysWith: { first, _ in first })
        let after = Dictionary(new.map { ($0.key, $0.value) }, uniquingKeysWith: { first, _ in first })
        var changes: [ConfigurationChange] = []
        for value in new {
            guard let pool = pool(of: value.key) else {
                let was = before[value.key] ?? ""
                if was != value.value { changes.append(ConfigurationChange(key: value.key, old: was, new: value.value, effect: effect(of: value.key))) }
                continue
            }
            guard before["pools.\(pool).module"] != nil else {
                if value.key == "pools.\(pool).module" {
                    changes.append(ConfigurationChange(key: "pools.\(pool)", old: "", new: value.value, effect: .added))
                }
                continue
            }
            let was = before[value.key] ?? ""
            if was != value.value { changes.append(ConfigurationChange(key: value.key, old: was, new: value.value, effect: effect(of: value.key))) }
        }
        for value in old {
            guard let pool = pool(of: value.key), value.key == "pools.\(pool).module", after[value.key] == nil else { continue }
            changes.append(ConfigurationChange(key: "pools.\(pool)", old: value.value, new: "", effect: .removed))
        }
        return changes
    }

    /// NAME of `pools.NAME.…`
    package static func pool(of key: String) -> String? {
        let parts = key.split(separator: ".", maxSplits: 2)
        return parts.count == 3 && parts[0] == "pools" ? String(parts[1]) : nil
    }

    /// What a change of this key does. A key that this version does not know was sent by another poold: only a restart can tell.
    package static func effect(of key: String) -> ChangeEffect {
        guard let pool = pool(of: key) else { return Tables.daemon[key]?.effect ?? .restart }
        return Tables.pool[String(key.dropFirst("pools.\(pool).".count))]?.effect ?? .restart
    }
}
