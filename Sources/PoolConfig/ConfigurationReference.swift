/// `deploy/poold.yaml`: every key with its default, what it takes, and what a change does, written from the schema.
package enum ConfigurationReference {
    private static let width = 100

    package static func text() -> String {
        var lines = [
            "# The reference of poold's configuration: every key with its default, its range and what it does.",
            "# `poolctl config reference` writes this page from the code; `poolctl config check FILE` names every problem of a file.",
            "#",
            "# Spans: 10s, 200ms, 5m, 1h, or a number of seconds. Sizes: 64MiB, 256KiB, or a number of bytes.",
            "# Relative paths are relative to the file that names them. Anchors, aliases and tags are refused.",
            "# Files named *.yaml in the folder pools.d beside this one hold pools too: a mapping like the one under `pools`.",
            "# After each range stands what `poolctl reload` does with a change: live (holds at once), recycle (the pool's workers",
            "# are replaced, make before break) or restart (holds after a restart of poold).",
        ]
        add(ConfigurationKey<Configuration>.daemon, Configuration(socketPath: "", controlPath: "", pools: []), indent: 0, &lines)
        lines += ["", "# What a pool does not say itself. A pool's own value stands in place of the one here, lists and mappings as a whole.", "defaults:"]
        let pool = PoolConfiguration(name: "", module: "", python: PoolDraft.defaultPython)
        add(ConfigurationKey<PoolConfiguration>.pool.filter { $0.name != "module" }, pool, indent: 1, &lines)
        let module = ConfigurationKey<PoolConfiguration>.module
        lines += [
            "",
            "# Names of 1 to 64 letters, digits, - and _; at most \(ConfigurationLoader.maximumPools). Each pool takes the keys of `defaults`, and `module`:",
            "# \(module.about)",
            "# \(module.allowed); \(module.effect.rawValue)",
            "# pools:",
            "#   text:",
            "#     module: \(module.example ?? "")",
            "#     workers: 4",
            "#     warm:",
            "#       - {call: summarize, arguments: {text: \"One. Two.\", sentences: 1}}",
            "#       - {import: numpy.linalg}",
            "#       - {script: /srv/warm.py}",
            "pools: {}",
        ]
        return lines.joined(separator: "\n") + "\n"
    }

    private static func add<Root>(_ keys: [ConfigurationKey<Root>], _ root: Root, indent: Int, _ lines: inout [String]) {
        var section: Substring = ""
        for key in keys {
            let parts = key.name.split(separator: ".", maxSplits: 1)
            let own = parts.count == 2 ? parts[0] : ""
            if own != section {
                if indent == 0 { lines.append("") }
                if !own.isEmpty { lines.append(margin(indent) + own + ":") }
                section = own
            }
            let left = margin(indent + parts.count - 1)
            lines += wrapped("\(key.about)", left)
            lines += wrapped("\(key.allowed); \(key.effect.rawValue)", left)
            lines.append(left + (key.example.map { "# \(parts.last!): \($0)" } ?? "\(parts.last!): \(key.show(root))"))
        }
    }

    private static func margin(_ indent: Int) -> String { String(repeating: "  ", count: indent) }

    private static func wrapped(_ text: String, _ left: String) -> [String] {
        var lines: [String] = []
        var line = left + "#"
        for word in text.split(separator: " ") {
            if line.count + 1 + word.count > width {
                lines.append(line)
                line = left + "#"
            }
            line += " " + word
        }
        return lines + [line]
    }
}
