import ArgumentParser
import Glibc
import PoolClient
import PoolConfig
import PoolProtocol
import SwiftProtobuf

struct Config: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Check, show and compare configuration files.",
        discussion: """
            EXAMPLE
              poolctl config check /etc/poold/poold.yaml

            EXIT CODES, besides those of poolctl
              78 the configuration is refused
            """,
        subcommands: [ConfigCheck.self, ConfigShow.self, ConfigDiff.self, ConfigReference.self])
}

/// A file as poold would load it.
private func load(_ file: String?, _ json: Bool) throws -> LoadedConfiguration {
    switch ConfigurationSource(file: file ?? ConfigurationSource.usualFile()).load() {
    case .loaded(let loaded): return loaded
    case .refused(let problems):
        if json { Output.line(problemsJSON(problems)) } else { for problem in problems { complain("\(problem)") } }
        if !json && file == nil && ConfigurationSource.usualFile() == nil {
            complain("No file was named, and there is no \(ConfigurationSource.usualPath). What a running poold holds shows `poolctl config show --running`.")
        }
        throw ExitCode(78)
    }
}

private func problemsJSON(_ problems: [ConfigurationProblem]) -> String {
    let lines = problems.map { problem in
        let texts = [("file", problem.place.file), ("key", problem.key), ("found", problem.found), ("allowed", problem.allowed), ("hint", problem.hint)]
        let fields = texts.map { "\"\($0.0)\": \(quoted($0.1))" } + ["\"line\": \(problem.place.line)", "\"column\": \(problem.place.column)"]
        return "{" + fields.joined(separator: ", ") + ", \"text\": \(quoted("\(problem)"))}"
    }
    return "{\"problems\": [" + lines.joined(separator: ", ") + "]}"
}

struct ConfigCheck: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Name every problem of a file and its pools.d, without a running poold.",
        usage: "poolctl config check [<file>] [--json]",
        discussion: "EXAMPLE\n  poolctl config check /etc/poold/poold.yaml")
    @Argument(help: "The file. Default: $POOLD_CONFIG, then /etc/poold/poold.yaml.") var file: String?
    @Flag(help: "Machine-readable output, one JSON value.") var json = false

    func run() throws {
        let loaded = try load(file, json)
        let count = loaded.configuration.pools.count
        let name = loaded.configuration.file ?? "no file, the example pools"
        Output.line(json ? problemsJSON([]) : "\(name): \(count) \(count == 1 ? "pool" : "pools"), no problems")
    }
}

struct ConfigShow: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show every value that holds, and where it comes from.",
        usage: "poolctl config show [<file> | --running] [--changed] [options]",
        discussion: "EXAMPLES\n  poolctl config show --changed /etc/poold/poold.yaml\n  poolctl config show --running")
    @OptionGroup var common: Common
    @Argument(help: "The file. Default: $POOLD_CONFIG, then /etc/poold/poold.yaml.") var file: String?
    @Flag(help: "What the running poold holds.") var running = false
    @Flag(help: "Leave out defaults.") var changed = false

    func validate() throws {
        if running && file != nil { throw ValidationError("--running shows what poold holds; a file is shown without it") }
    }

    func run() throws {
        var shown = try running ? common.ask(.configuration) : Self.message(load(file, common.json))
        if changed { shown.values.removeAll { $0.origin == "default" } }
        if common.json { return Output.line(try shown.json()) }
        Output.line(shown.file.isEmpty ? "no file" : shown.file)
        // Wider is no easier to read, and a pipe has the lines of a usual terminal.
        let width = min(common.style.width ?? 80, 80)
        var group: String?
        for value in shown.values {
            let pool = ConfigurationDifference.pool(of: value.key)
            if pool != group, let pool { Output.line("\npools.\(pool)") }
            group = pool
            Self.show(pool.map { "  " + value.key.dropFirst("pools.\($0).".count) } ?? value.key, value.value, value.origin, width)
        }
    }

    private static let keyWidth = 34
    private static let valueWidth = 20

    /// Key, value and origin in columns; what does not fit stands on lines of its own.
    private static func show(_ key: String, _ value: String, _ origin: String, _ width: Int) {
        let value = value.isEmpty ? "-" : value
        let line = Format.pad(key, keyWidth) + Format.pad(value, valueWidth) + origin
        if line.count <= width { return Output.line(line) }
        Output.line(keyWidth + value.count <= width ? Format.pad(key, keyWidth) + value : key + "\n    " + value)
        Output.line(String(repeating: " ", count: max(4, min(keyWidth, width - origin.count))) + origin)
    }

    static func message(_ loaded: LoadedConfiguration) -> Poold_V1_EffectiveConfiguration {
        var message = Poold_V1_EffectiveConfiguration()
        message.file = loaded.configuration.file ?? ""
        message.values = loaded.values.map { value in
            var line = Poold_V1_ConfigurationValue()
            (line.key, line.value, line.origin) = (value.key, value.value, value.origin)
            return line
        }
        return message
    }
}

struct ConfigDiff: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "diff", abstract: "Say what a file would change: of another file, or of the running poold.",
        usage: "poolctl config diff <file> [options]\npoolctl config diff <old> <new> [--json]",
        discussion: "EXAMPLES\n  poolctl config diff /etc/poold/poold.yaml\n  poolctl config diff old.yaml new.yaml")
    @OptionGroup var common: Common
    @Argument(help: "The file that would be loaded; with a second one: the old file.") var first: String
    @Argument(help: "The new file.") var second: String?

    func run() throws {
        let changes: [PoolConfig.ConfigurationChange]
        if let second {
            let old = try load(first, common.json)
            changes = ConfigurationDifference.changes(from: old, to: try load(second, common.json))
        } else {
            let new = try load(first, common.json)
            let running: Poold_V1_EffectiveConfiguration = try common.ask(.configuration)
            changes = ConfigurationDifference.changes(
                of: running.values.map { ConfigurationValue(key: $0.key, value: $0.value, origin: $0.origin) }, byReloading: new.values)
        }
        if common.json {
            var message = Poold_V1_ReloadResult()
            message.changes = changes.map { change in
                var line = Poold_V1_ConfigurationChange()
                (line.key, line.old, line.new, line.effect) = (change.key, change.old, change.new, change.effect.rawValue)
                return line
            }
            return Output.line(try message.json())
        }
        if changes.isEmpty { Output.line("no differences") }
        for change in changes {
            let what: String
            switch change.effect {
            case .added: what = change.new
            case .removed: what = change.old
            case .live, .recycle, .restart: what = "\(change.old.isEmpty ? "-" : change.old) → \(change.new.isEmpty ? "-" : change.new)"
            }
            let line = Format.pad(change.effect.rawValue, 9) + Format.pad(change.key, 34) + what
            Output.line(line.count <= 80 ? line : Format.pad(change.effect.rawValue, 9) + change.key + "\n           " + what)
        }
    }
}

struct ConfigReference: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reference", abstract: "Print a file with every key, its default, its range and what it does.",
        discussion: "EXAMPLE\n  poolctl config reference > poold.yaml")

    func run() throws { Output.write(ConfigurationReference.text()) }
}
