import PoolConfig
import PoolCore
import Testing

@Suite struct ValueTests {
    let bench = Bench()

    @Test func spans() {
        let expected: [(String, Nanoseconds?)] = [
            ("10s", 10_000_000_000), ("200ms", 200_000_000), ("5m", 300_000_000_000), ("1h", 3_600_000_000_000), ("1.5h", 5_400_000_000_000),
            ("7", 7_000_000_000),
            ("0.25", 250_000_000), ("10us", 10_000), ("3ns", 3), ("0", 0), ("", nil), ("s", nil), ("-1s", nil), ("1 s", nil), ("1.s", nil), (".5s", nil),
            ("1..2s", nil), ("1e3", nil), ("10d", nil), ("99999999999999999999s", nil), ("18446744074s", nil), ("0.0000000000000000001s", nil),
        ]
        for (text, value) in expected { #expect(SpanText.nanoseconds(text) == value, "\(text)") }
        for span: Nanoseconds in [0, 1, 999, 1_000_000, 900_000_000_000, 86_400_000_000_000, 1_500_000_000, .max] {
            #expect(SpanText.nanoseconds(SpanText.text(span)) == span)
        }
        #expect(SpanText.text(900_000_000_000) == "15m")
    }

    @Test func sizes() {
        let expected: [(String, UInt64?)] = [
            ("64MiB", 64 << 20), ("256KiB", 256 << 10), ("1.5GiB", 3 << 29), ("100", 100), ("100B", 100), ("64MB", nil), ("1.5", nil), ("-1", nil),
            ("99999999TiB", nil),
        ]
        for (text, value) in expected { #expect(SizeText.bytes(text) == value, "\(text)") }
        for size: UInt64 in [0, 1, 1024, 64 << 20, .max] { #expect(SizeText.bytes(SizeText.text(size)) == size) }
    }

    @Test func aPoolInheritsAndOverrides() throws {
        bench.write("pools.d/late.yaml", "late: {module: ../text.py, workers: 9}\nsecond: {module: a.b}\n")
        let loaded = try #require(
            bench.loaded(
                """
                defaults:
                  workers: 3
                  queue: {max_calls: 10}
                  environment: {A: 1, B: two}
                pools:
                  text:
                    module: text.py
                    workers: 100
                    environment: {C: "yes"}
                    python_path: [lib, /srv/lib]
                    warm:
                      - {call: text.x, arguments: {a: [1, -2.5e3, 007, yes, true, ~, "3"], b: 1.}}
                      - import: numpy.linalg
                      - script: text.py
                    callers: [0, "@0"]
                """))
        let pools = loaded.configuration.pools
        #expect(pools.map(\.name) == ["text", "late", "second"])
        #expect(pools.map(\.policy.workers) == [100, 9, 3])
        #expect(pools.map(\.policy.maximumWorkers) == [100, 64, 64])
        #expect(pools.map(\.policy.maximumQueuedCalls) == [10, 10, 10])
        #expect(pools[0].environment == ["C": "yes"] && pools[1].environment == ["A": "1", "B": "two"])
        #expect(pools[0].pythonPath.starts(with: ["\(bench.folder)/lib", "/srv/lib"]))
        #expect(pools[0].module == "\(bench.folder)/text.py" && pools[1].module == pools[0].module)
        #expect(
            pools[0].warm == [
                .call(method: "text.x", arguments: "{\"a\": [1, -2.5e3, \"007\", \"yes\", true, null, \"3\"], \"b\": \"1.\"}"), .module("numpy.linalg"),
                .script("\(bench.folder)/text.py"),
            ])
        #expect(pools[0].callers == [.user(0), .group(0)])
        #expect(loaded.origin("pools.text.workers") == "\(bench.folder)/poold.yaml:8")
        #expect(loaded.origin("pools.late.workers") == "\(bench.folder)/pools.d/late.yaml:1")
        #expect(loaded.origin("pools.second.workers") == "\(bench.folder)/poold.yaml:2")
        #expect(loaded.origin("pools.text.surge") == "default")
        #expect(loaded.value("pools.text.callers") == "[root, \"@root\"]")
    }

    @Test func optionsHoldOverTheFile() throws {
        bench.write("poold.yaml", "log: {level: debug}\npools:\n  text: {module: text.py, workers: 3}\n")
        var source = ConfigurationSource(
            file: "\(bench.folder)/poold.yaml",
            overrides: [
                ConfigurationOverride("workers", "70", option: "--workers"), ConfigurationOverride("daemon.socket", "/tmp/x", option: "--socket"),
                ConfigurationOverride("python_path", list: ["a"], option: "--python-path"),
            ], pools: [PoolOption(name: "more", module: "a.b")])
        guard case .loaded(let loaded) = source.load() else {
            Issue.record("refused")
            return
        }
        #expect(loaded.configuration.pools.map(\.policy.workers) == [70, 70])
        #expect(loaded.configuration.socketPath == "/tmp/x" && loaded.configuration.controlPath == "/tmp/x.control")
        #expect(loaded.configuration.log.level == "debug" && loaded.configuration.pools[0].pythonPath.first == "a")
        #expect(loaded.origin("pools.more.module") == "option" && loaded.origin("daemon.socket") == "option")
        source.overrides = [ConfigurationOverride("workers", "500", option: "--workers")]
        source.pools = [PoolOption(name: "text", module: "a.b")]
        guard case .refused(let problems) = source.load() else {
            Issue.record("taken")
            return
        }
        #expect(
            problems.map { "\($0)" } == [
                "--pool text=a.b: pools.text: found the pool a second time, allowed: each pool once; the first is at \(bench.folder)/poold.yaml:3",
                "--workers: found \"500\", allowed: a whole number from 0 to 448",
            ])
    }

    @Test func differenceSaysWhatAChangeDoes() throws {
        let old = try #require(
            bench.loaded("pools:\n  text: {module: text.py, workers: 2}\n  gone: {module: a.b}\n"))
        let new = try #require(
            bench.loaded(
                """
                daemon: {socket_mode: 0660}
                log: {level: debug, format: json}
                limits: {max_connections: 10}
                pools:
                  fresh: {module: c.d}
                  text: {module: a.b, workers: 3, environment: {A: 1}, warm: [{import: x}]}
                """))
        func change(_ key: String, _ old: String, _ new: String, _ effect: ChangeEffect) -> ConfigurationChange {
            ConfigurationChange(key: key, old: old, new: new, effect: effect)
        }
        #expect(
            ConfigurationDifference.changes(from: old, to: new) == [
                change("daemon.socket_mode", "0666", "0660", .restart), change("log.level", "info", "debug", .live),
                change("log.format", "text", "json", .live), change("limits.max_connections", "65536", "10", .restart),
                change("pools.fresh", "", "c.d", .added), change("pools.text.module", "\(bench.folder)/text.py", "a.b", .recycle),
                change("pools.text.environment", "{}", "{A: \"1\"}", .recycle), change("pools.text.warm", "[]", "[{import: x}]", .recycle),
                change("pools.text.workers", "2", "3", .live), change("pools.gone", "a.b", "", .removed),
            ])
        #expect(ConfigurationDifference.changes(from: new, to: new).isEmpty)
        let effects = Dictionary(grouping: ConfigurationKey<PoolConfiguration>.pool) { $0.effect }.mapValues { $0.map(\.name) }
        #expect(effects[.recycle] == ["module", "python", "python_path", "environment", "directory", "template", "warm", "warm_timeout"])
    }
}
