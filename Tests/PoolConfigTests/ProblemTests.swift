import Glibc
import PoolConfig
import Testing

/// Each kind of mistake, with its line and its words.
@Suite struct ProblemTests {
    let bench = Bench()

    @Test func everyProblemIsNamedAtOnce() {
        let problems = bench.problems(
            """
            daemon:
              socket_mode: 0999
              shutdown_limit: soon
            log:
              level: infos
            pools:
              text:
                module: text.py
                workers: many
                wokers: 3
                queue:
                  max_byte: 5
                max_calls: 7
                start_timeout: 4s
              other:
                workers: 4
              "a b": {module: x}
            nonsense: 1
            """)
        #expect(
            problems == [
                "poold.yaml:2: daemon.socket_mode: found \"0999\", allowed: an octal mode from 0600 to 0777",
                "poold.yaml:3: daemon.shutdown_limit: found \"soon\", allowed: a span from 0s to 24h; write it like 10s, 200ms, 5m, 1h, or as seconds",
                "poold.yaml:5: log.level: found \"infos\", allowed: trace, debug, info, notice, warning, error; did you mean \"info\"?",
                "poold.yaml:9: pools.text.workers: found \"many\", allowed: a whole number from 0 to 448",
                "poold.yaml:10: pools.text.wokers: found an unknown key; did you mean \"workers\"?",
                "poold.yaml:12: pools.text.queue.max_byte: found an unknown key; did you mean \"max_bytes\"?",
                "poold.yaml:13: pools.text.max_calls: found an unknown key; did you mean \"prefetch.max_calls\"?",
                "poold.yaml:14: pools.text.start_timeout: found an unknown key; did you mean \"lifecycle.start_timeout\"?",
                "poold.yaml:15: pools.other.module: found no module, allowed: a dotted Python module or a path to a .py file",
                "poold.yaml:17: pools: found the name \"a b\", allowed: 1 to 64 letters, digits, - and _",
                "poold.yaml:18: nonsense: found an unknown key, allowed: defaults, pools, daemon, log, roles, limits",
            ])
    }

    @Test func typesAreStrict() {
        let problems = bench.problems(
            """
            limits:
              max_body: 64MB
              max_connections: "5"
            roles: [alice]
            defaults:
              template: perhaps
              workers: 4.5
              window:
            pools:
              text: text.py
              other: {module: text.py, workers: 0x10, recycle: {jitter: 10}, environment: [A], warm: [{call: x, import: y}]}
            """)
        #expect(
            problems == [
                "poold.yaml:2: limits.max_body: found \"64MB\", allowed: a size from 1KiB to 1GiB; write it like 64MiB, 256KiB, or as bytes",
                "poold.yaml:3: limits.max_connections: found \"5\", allowed: a whole number from 1 to 1000000; write it without quotes",
                "poold.yaml:4: roles: found a list, allowed: a mapping of look, operate",
                "poold.yaml:6: defaults.template: found \"perhaps\", allowed: true or false",
                "poold.yaml:7: defaults.workers: found \"4.5\", allowed: a whole number from 0 to 448",
                "poold.yaml:8: defaults.window: found an unknown key, allowed: \(poolNames)",
                "poold.yaml:10: pools.text: found \"text.py\", allowed: a mapping of a pool's keys, like {module: text.py, workers: 4}",
                "poold.yaml:11: pools.other.workers: found \"0x10\", allowed: a whole number from 0 to 448",
                "poold.yaml:11: pools.other.recycle.jitter: found \"10\", allowed: 0% to 90%",
                "poold.yaml:11: pools.other.environment: found a list, allowed: a mapping of names to text; write a mapping: {OMP_NUM_THREADS: 1}",
                "poold.yaml:11: pools.other.warm: found several of them, allowed: exactly one of call, import, script",
            ])
    }

    private var poolNames: String {
        var names: [String] = []
        for key in ConfigurationKey<PoolConfiguration>.pool {
            let name = String(key.name.prefix { $0 != "." })
            if !names.contains(name) { names.append(name) }
        }
        return names.joined(separator: ", ")
    }

    /// A key has one form, so that none can be there twice.
    @Test func keysWithADotAreRefused() {
        #expect(
            bench.problems(
                """
                log.level: debug
                log: {level: info}
                defaults:
                  overload.policy: codel
                pools:
                  text:
                    module: a.b
                    queue.max_calls: 10
                    queue: {max_calls: 20}
                    queue.most: 1
                """) == [
                    "poold.yaml:1: log.level: found a key with a dot, allowed: mappings in mappings; write log: {level: …}",
                    "poold.yaml:4: defaults.overload.policy: found a key with a dot, allowed: mappings in mappings; write overload: {policy: …}",
                    "poold.yaml:8: pools.text.queue.max_calls: found a key with a dot, allowed: mappings in mappings; write queue: {max_calls: …}",
                    "poold.yaml:10: pools.text.queue.most: found a key with a dot, allowed: mappings in mappings",
                ])
    }

    /// execve takes no argument and no variable of 128 KiB: no worker could start.
    @Test func whatExecveDoesNotTake() {
        // With `LONG=` and without.
        let longest = String(repeating: "x", count: 131_071 - 5)
        let folder = "/" + String(repeating: "x", count: 65_535)
        func pool(_ lines: String) -> String { "pools:\n  text:\n    module: a.b\n\(lines)\n" }
        let allowed = "allowed: at most 131071, as the kernel limits an argument or a variable of a program"
        #expect(bench.problems(pool("    environment:\n      A: 1\n      LONG: \(longest)")) == [])
        #expect(
            bench.problems(pool("    environment:\n      A: 1\n      LONG: \(longest)x")) == [
                "poold.yaml:6: pools.text.environment: found 131072 bytes in \"LONG\", \(allowed); write it to a file, and name that"
            ])
        #expect(bench.problems(pool("    python_path: [\(folder)]")) == [])
        let path = bench.problems(pool("    python_path:\n      - \(folder)\n      - \(folder)"))
        #expect(path.count == 1 && path[0].hasPrefix("poold.yaml:4: pools.text.python_path: found 131"))
        #expect(path.first?.hasSuffix(" bytes in PYTHONPATH, \(allowed)") == true)
        // Quotes stand there with a backslash each, and the arguments' own again.
        for (count, text) in [(120_000, "x"), (60_000, "\\\""), (30_000, "\\\"")] {
            let call = "{call: x, arguments: {text: \"\(String(repeating: text, count: count))\"}}"
            let warm = bench.problems(pool("    warm:\n      - import: a.b\n      - \(call)"))
            if count == 60_000 {
                #expect(warm.count == 1 && warm[0].hasPrefix("poold.yaml:4: pools.text.warm: found 240"))
                #expect(warm.first?.hasSuffix(" bytes in POOLD_WARM, \(allowed); a script can do more") == true)
            } else {
                #expect(warm == [])
            }
        }
        #expect(
            bench.problems("pools:\n  text:\n    module: \(longest)xxxxxx\n") == [
                "poold.yaml:3: pools.text.module: found 131072 bytes of a module's name, \(allowed)"
            ])
    }

    @Test func rulesThatWouldNeverHold() {
        #expect(
            bench.problems("pools:\n  text:\n    module: a.b\n    backoff: {unavailable_after: 1001}\n") == [
                "poold.yaml:4: pools.text.backoff.unavailable_after: found \"1001\", allowed: a whole number from 1 to 1000"
            ])
        #expect(bench.problems("pools:\n  text:\n    module: a.b\n    backoff: {unavailable_after: 1000}\n") == [])
        let sessions = "pools:\n  text:\n    module: a.b\n    sessions:\n      affinity: AFFINITY\n      time_to_live: 0s\n"
        #expect(
            bench.problems(sessions.replacing("AFFINITY", with: "require")) == [
                "poold.yaml:6: pools.text.sessions.time_to_live: found 0s, never, with sessions.affinity require, allowed: more than 0s with it; "
                    + "sessions whose callers are gone would fill max_sessions for ever"
            ])
        #expect(bench.problems(sessions.replacing("AFFINITY", with: "prefer")) == [])
    }

    @Test func duplicatesNameBothLines() {
        #expect(
            bench.problems("log:\n  level: info\n  level: debug\nlog: {}\n") == [
                "poold.yaml:3: log.level: found the key \"level\" a second time, allowed: each key once; the first is in line 2",
                "poold.yaml:4: log: found the key \"log\" a second time, allowed: each key once; the first is in line 1",
            ])
    }

    @Test func anchorsAliasesAndTagsAreRefused() {
        let hint = "allowed: values written out; what every pool shares stands under `defaults`; text that begins with"
        #expect(
            bench.problems("defaults: &all\n  workers: !!int 3\npools: *all\n") == [
                "poold.yaml:1: found the anchor \"&all\", \(hint) & stands in quotes",
                "poold.yaml:2: found the tag \"tag:yaml.org,2002:int\", allowed: values without tags; text that begins with ! stands in quotes",
                "poold.yaml:3: found the alias \"*all\", \(hint) * stands in quotes",
            ])
    }

    @Test func aBillionLaughsAreRefusedAtOnce() {
        var text = "a0: &a0 [lol, lol]\n"
        for level in 1...40 { text += "a\(level): &a\(level) [\((0..<9).map { _ in "*a\(level - 1)" }.joined(separator: ", "))]\n" }
        text += "? *a40\n: x\n"
        let start = ContinuousClock.now
        #expect(bench.problems(text).count == 200)
        #expect(ContinuousClock.now - start < .seconds(10))
    }

    @Test func nestingIsBounded() {
        let brackets = { (count: Int) in "pools: " + String(repeating: "[", count: count) }
        #expect(
            bench.problems(brackets(900) + "1" + String(repeating: "]", count: 900)) == [
                "poold.yaml:1: found more than 32 levels of nesting, allowed: at most so many"
            ])
        // libyaml reads ahead, and refuses before anybody is asked.
        #expect(bench.problems(brackets(900_000)).first?.hasPrefix("poold.yaml:1: found no valid YAML: Maximum nesting level reached") == true)
    }

    @Test func syntaxHasALine() {
        #expect(bench.problems("log:\n  level: [info\npools: {}\n").first?.hasPrefix("poold.yaml:3: found no valid YAML: ") == true)
        #expect(bench.problems("roles:\n  look: [@staff]\n").first?.contains("poold.yaml:2: found no valid YAML") == true)
        #expect(bench.problems("log:\n\tlevel: info\n").first?.hasPrefix("poold.yaml:2: ") == true)
        #expect(bench.problems("log: \"\u{01}\"\n").first?.hasPrefix("poold.yaml:1: found no valid YAML: control characters") == true)
        #expect(bench.problems("log: {}\n---\nlog: {}\n") == ["poold.yaml:2: found a second document, allowed: one document in a file"])
        #expect(bench.problems("- a\n") == ["poold.yaml:1: found a list, allowed: a mapping of daemon, log, roles, limits, defaults, pools"])
    }

    @Test func filesThatAreNone() {
        #expect(bench.problems() == ["poold.yaml: found no such file"])
        #expect(bench.problems("").first?.hasPrefix("poold.yaml: found an empty file") == true)
        #expect(bench.problems("# nothing\n").first?.hasPrefix("poold.yaml: found an empty file") == true)
        bench.write("poold.yaml", [0xEF, 0xBB, 0xBF] + Array("log: {}".utf8))
        #expect(bench.problems() == ["poold.yaml:1: found a byte-order mark, allowed: UTF-8 without one; save the file again as plain UTF-8"])
        bench.write("poold.yaml", Array("log: {}\n# ".utf8) + [0xE4, 0x0A])
        #expect(bench.problems() == ["poold.yaml:2: found bytes that are not UTF-8, allowed: UTF-8"])
        bench.write("poold.yaml", [UInt8](repeating: 0x23, count: 1 << 20 + 1))
        #expect(bench.problems() == ["poold.yaml: found more than 1MiB, allowed: at most that much YAML"])
        unlink("\(bench.folder)/poold.yaml")
        mkdir("\(bench.folder)/poold.yaml", 0o700)
        #expect(bench.problems() == ["poold.yaml: found a directory, allowed: a YAML file; name the file in it"])
        rmdir("\(bench.folder)/poold.yaml")
        mkfifo("\(bench.folder)/poold.yaml", 0o600)
        #expect(bench.problems() == ["poold.yaml: found something that is not a regular file, allowed: a YAML file"])
        unlink("\(bench.folder)/poold.yaml")
        bench.write("poold.yaml", "log: {}")
        if getuid() != 0 {
            chmod("\(bench.folder)/poold.yaml", 0)
            #expect(bench.problems() == ["poold.yaml: found no permission to read it; check its owner and mode, and those of its folder"])
        }
    }

    @Test func valuesMustFitEachOther() {
        let long = String(repeating: "x", count: 120)
        #expect(
            bench.problems(
                """
                daemon: {socket: /tmp/a, control_socket: /tmp/a}
                limits:
                  max_unread_to_close: 4KiB
                defaults: {min_workers: 3, budget: {max: 1s}}
                pools:
                  text:
                    module: missing.py
                    workers: 2
                    max_workers: 1
                """) == [
                    "poold.yaml:1: daemon.control_socket: found the callers' socket, allowed: another path",
                    "poold.yaml:3: limits.max_unread_to_close: found 4KiB, allowed: at least limits.max_unread_per_connection, 8MiB",
                    "poold.yaml:4: pools.text.min_workers: found 3, allowed: at most max_workers, 1",
                    "poold.yaml:4: pools.text.budget.default: found 1m, allowed: at most budget.max, 1s",
                    "poold.yaml:7: pools.text.module: found \"missing.py\", allowed: a dotted Python module or a path to a .py file; \"missing.py\" does not exist",
                    "poold.yaml:8: pools.text.workers: found 2, allowed: at least min_workers, 3",
                    "poold.yaml:8: pools.text.workers: found 2, allowed: at most max_workers, 1",
                ])
        #expect(
            bench.problems("daemon:\n  socket: /tmp/\(long)\n") == [
                "poold.yaml:2: daemon.socket: found a path of 125 bytes, allowed: 107, as the kernel limits a socket's; choose a shorter one",
                "poold.yaml:2: daemon.control_socket: found a path of 133 bytes, allowed: 107, as the kernel limits a socket's; choose a shorter one",
            ])
    }

    @Test func strangersAndPrograms() {
        let problems = bench.problems(
            "roles:\n  look: [root, 0, \"*\", \"@0\", nobody-of-that-name]\n  operate: [\"@nobody-of-that-name\"]\ndefaults:\n  python: no-python-of-that-name\n"
        )
        #expect(problems.count == 3)
        #expect(problems.first?.hasSuffix("; this machine knows no user \"nobody-of-that-name\"") == true)
        #expect(problems.dropFirst().first?.hasSuffix("; this machine knows no group \"nobody-of-that-name\"") == true)
        #expect(problems.last?.hasPrefix("poold.yaml:5: defaults.python: found \"no-python-of-that-name\"") == true)
    }

    @Test func aPoolTwiceNamesBothPlaces() {
        bench.write("pools.d/b.yaml", "\ntext: {module: text.py}\n")
        bench.write("pools.d/a.yaml", "other: {module: ../text.py}\nbad: [1]\n")
        let problems = bench.problems("pools:\n  text: {module: text.py}\n")
        #expect(problems.count == 2)
        #expect(problems.first?.hasPrefix("pools.d/a.yaml:2: pools.bad: found a list") == true)
        #expect(problems.last == "pools.d/b.yaml:2: pools.text: found the pool a second time, allowed: each pool once; the first is at poold.yaml:2")
    }

    @Test func aFileOfPoolsHoldsThemWithoutAHeading() {
        bench.write("pools.d/a.yaml", "pools:\n  text: {module: ../text.py}\n  text: {module: ../text.py}\n")
        let hint = "a file in pools.d is the mapping under `pools`: leave this line out"
        let problems = bench.problems("pools:\n  other: {module: text.py}\n")
        #expect(problems.first == "pools.d/a.yaml:1: pools: found the key pools, allowed: names of pools; \(hint)")
        #expect(problems.count == 2 && problems.last?.hasPrefix("pools.d/a.yaml:3: pools.pools.text: found the key \"text\" a second time") == true)
        bench.write("pools.d/a.yaml", "pools: {module: ../text.py}\n")
        #expect(bench.problems("pools:\n  other: {module: text.py}\n") == [], "a pool may have that name")
    }

    @Test func theNameOfTheCanaryIsTaken() {
        let pool = "pools:\n  poold-canary: {module: text.py}\n"
        let found = "pools: found the name poold-canary, allowed: another: it is poold's own while it has a canary"
        #expect(bench.problems("daemon: {canary: on}\n" + pool) == ["poold.yaml:3: \(found); rename the pool, or set daemon.canary to off"])
        #expect(bench.problems(pool) == ["poold.yaml:2: \(found); rename the pool, or set daemon.canary to off"])
        #expect(bench.problems("daemon: {canary: off}\n" + pool) == [])
    }

    @Test func whatWasRefusedIsNotComparedWith() {
        let problems = bench.problems("pools:\n  a:\n    module: [1]\n    workers: 449\n    min_workers: 5\n")
        #expect(problems.count == 2)
        #expect(problems.last?.hasPrefix("poold.yaml:4: pools.a.workers: found \"449\"") == true)
        let one = "pools:\n  a: {module: text.py, min_workers: 5}\n"
        #expect(bench.problems("defaults: {workers: many}\n" + one).count == 1)
        #expect(bench.problems("defaults: [1]\n" + one).count == 1)
        #expect(bench.problems("limits: {max_unread_per_connection: x, max_unread_to_close: 4KiB}\n").count == 1)
        #expect(bench.problems("pools:\n  a: {module: text.py, budget: 5, workers: 2}\ndefaults: {budget: {default: 2h, max: 1s}}\n").count == 1)
    }

    @Test func whatStandsThereIsComparedAllTheSame() {
        #expect(bench.problems("defaults: {workers: many}\npools:\n  a: {module: text.py, workers: 2, min_workers: 5}\n").count == 2)
        let twice = "pools:\n  a: {workers: 2, min_workers: 5}\n  a: {module: text.py}\n"
        #expect(bench.problems(twice).count == 3, "the second a, no module, and too few workers")
    }

    @Test func poolsAreBounded() {
        var text = "pools:\n"
        for index in 0...256 { text += "  p\(index): {module: a.b}\n" }
        #expect(bench.problems(text) == ["poold.yaml:258: pools: found one pool too many, allowed: at most 256"])
    }
}
