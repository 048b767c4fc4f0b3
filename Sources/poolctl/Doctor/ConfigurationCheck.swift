import PoolConfig
import PoolProtocol

/// The configuration that the other checks go by.
struct ConfigurationCheck {
    /// nil: it has problems.
    var configuration: Configuration?
    var findings: [Finding]

    /// `running`: the poold that answers, whose file counts where no other is named.
    static func load(_ file: String?, running: Poold_V1_Version?) -> ConfigurationCheck {
        let own = running.flatMap { $0.configurationFile.isEmpty ? nil : $0.configurationFile }
        let file = file ?? ConfigurationSource.usualFile() ?? own
        if file == nil, let running {
            let found = "no file; the running poold, pid \(running.pid), was given its pools by options"
            return ConfigurationCheck(configuration: nil, findings: [.ok("configuration", "file", found)])
        }
        switch ConfigurationSource(file: file).load() {
        case .loaded(let loaded):
            let pools = loaded.configuration.pools.filter { !$0.isReserved }.map { $0.name }.joined(separator: ", ")
            let found = file.map { "\($0) is valid; pools: \(pools)" } ?? "no file; poold serves the example pools: \(pools)"
            return ConfigurationCheck(configuration: loaded.configuration, findings: [.ok("configuration", "file", found)])
        case .refused(let problems):
            let findings = problems.map { problem in
                // Without a file the problem's place has the name of the check.
                let found = file == nil ? String(problem.description.dropFirst(problem.place.text.count + 2)) : problem.description
                return Finding.fail(
                    "configuration", file == nil ? "default" : "file", found,
                    costs: file == nil ? "`poold serve` needs --pool or --config" : "poold does not start with it, and a reload changes nothing",
                    advice: file == nil ? "name pools, or write \(ConfigurationSource.usualPath)" : "correct it; `poolctl config check` shows all at once")
            }
            return ConfigurationCheck(configuration: nil, findings: findings)
        }
    }
}
