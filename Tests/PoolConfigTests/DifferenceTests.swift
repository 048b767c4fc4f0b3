import PoolConfig
import Testing

/// What a reload of a running poold is said to change.
@Suite struct DifferenceTests {
    let bench = Bench()

    private func running(_ text: String, workers: String? = nil) throws -> LoadedConfiguration {
        bench.write("poold.yaml", text)
        var source = ConfigurationSource(file: "\(bench.folder)/poold.yaml")
        if let workers { source.overrides = [ConfigurationOverride("workers", workers, option: "--workers")] }
        guard case .loaded(let loaded) = source.load() else { throw Refused() }
        return loaded
    }
    private struct Refused: Error {}

    private func change(_ key: String, _ old: String, _ new: String, _ effect: ChangeEffect) -> ConfigurationChange {
        ConfigurationChange(key: key, old: old, new: new, effect: effect)
    }

    /// The file that `python3` is found to be, not the word: a reload with another one replaces the workers.
    @Test func theDefaultPythonIsShownAsItIsUsed() throws {
        let loaded = try running("pools:\n  text: {module: a.b}\n  own: {module: a.b, python: python3}\n")
        let python = loaded.configuration.pools[0].python
        #expect(python.hasSuffix("/python3"))
        #expect(loaded.value("pools.text.python") == loaded.value("pools.own.python") && loaded.value("pools.text.python")?.contains("/python3") == true)
        #expect(loaded.origin("pools.text.python") == "default" && loaded.origin("pools.own.python") == "\(bench.folder)/poold.yaml:3")
        var other = loaded
        for index in other.values.indices where other.values[index].key.hasSuffix(".python") { other.values[index].value = "/opt/python3" }
        let shown = try #require(loaded.value("pools.text.python"))
        #expect(
            ConfigurationDifference.changes(from: loaded, to: other) == [
                change("pools.text.python", shown, "/opt/python3", .recycle), change("pools.own.python", shown, "/opt/python3", .recycle),
            ])
        // Which one poold will find, another process with another PATH cannot tell.
        #expect(
            ConfigurationDifference.changes(of: loaded.values, byReloading: other.values) == [change("pools.own.python", shown, "/opt/python3", .recycle)])
    }

    @Test func whatIsNotShownIsNoChange() throws {
        let file = "pools:\n  text:\n    module: a.b\n    environment: {KEY: secret}\n    workers: 3\n"
        var running = try running(file).values
        for index in running.indices where running[index].key.hasSuffix(".environment") { running[index].value = ConfigurationValue.hidden }
        let new = try #require(bench.loaded(file.replacing("workers: 3", with: "workers: 4"))).values
        #expect(ConfigurationDifference.changes(of: running, byReloading: new) == [change("pools.text.workers", "3", "4", .live)])
        // The words that poold writes.
        #expect(ConfigurationValue.hidden == "(shown to who may operate)")
    }

    @Test func theDefaultControlSocketFollowsTheSocket() throws {
        let pools = "pools:\n  text: {module: a.b}\n"
        let running = try #require(bench.loaded("daemon: {socket: /run/a}\n" + pools)).values
        let new = try #require(bench.loaded("daemon: {socket: /run/b}\n" + pools)).values
        #expect(
            ConfigurationDifference.changes(of: running, byReloading: new) == [
                change("daemon.socket", "/run/a", "/run/b", .restart), change("daemon.control_socket", "/run/a.control", "/run/b.control", .restart),
            ])
    }

    @Test func theDefaultBoundFollowsTheWorkersOfAnOption() throws {
        let file = "pools:\n  text: {module: a.b, workers: 3}\n"
        let running = try running(file, workers: "100").values
        #expect(ConfigurationDifference.changes(of: running, byReloading: try #require(bench.loaded(file)).values) == [])
        let bound = try #require(bench.loaded("pools:\n  text: {module: a.b, max_workers: 120}\n")).values
        #expect(ConfigurationDifference.changes(of: running, byReloading: bound) == [change("pools.text.max_workers", "100", "120", .live)])
    }
}
