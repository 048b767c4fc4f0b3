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
        let isSocketNamed = new.contains { $0.key == "daemon.socket" && $0.origin != "default" }
        let before = Dictionary(running.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
        for index in new.indices {
            let key = new[index].key
            if let value = overridden[key] {
                new[index].value = value
                continue
            }
            guard let old = before[key] else { continue }
            // What is not shown cannot be compared.
            if old.value == ConfigurationValue.hidden { new[index].value = old.value }
            guard new[index].origin == "default" else { continue }
            // Where nobody named it, the socket or the python3 of this user's environment is not poold's.
            let follows = key == "daemon.control_socket" && isSocketNamed
            if old.origin == "default" && dependsOnEnvironment(key) && !follows { new[index].value = old.value }
            if key == "daemon.control_socket", let socket = overridden["daemon.socket"] { new[index].value = FlowText.scalar(socket + ".control") }
        }
        followWorkers(&new)
        return changes(from: running, to: new)
    }

    private static func dependsOnEnvironment(_ key: String) -> Bool {
        key == "daemon.socket" || key == "daemon.control_socket" || pool(of: key).map { key == "pools.\($0).python" } ?? false
    }

    /// A bound that nobody named goes with the workers that an option set.
    private static func followWorkers(_ values: inout [ConfigurationValue]) {
        let workers = Dictionary(values.map { ($0.key, $0.value) }, uniquingKeysWith: { first, _ in first })
        for index in values.indices where values[index].origin == "default" {
            guard let pool = pool(of: values[index].key), values[index].key == "pools.\(pool).max_workers",
                let count = workers["pools.\(pool).workers"].flatMap({ Int($0) })
            else { continue }
            values[index].value = "\(PoolConfiguration.defaultMaximumWorkers(workers: count))"
        }
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
