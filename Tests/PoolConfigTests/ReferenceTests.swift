import Glibc
import PoolConfig
import Testing

/// deploy/poold.yaml, the code and the defaults say the same.
@Suite struct ReferenceTests {
    static let path = String(#filePath.dropLast("Tests/PoolConfigTests/ReferenceTests.swift".count)) + "deploy/poold.yaml"

    static func text() throws -> String {
        let file = try #require(fopen(path, "r"))
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        return String(decoding: bytes[..<fread(&bytes, 1, bytes.count, file)], as: UTF8.self)
    }

    @Test func referenceIsWhatTheCodeSays() throws {
        #expect(try Self.text() == ConfigurationReference.text(), "poolctl config reference > deploy/poold.yaml")
    }

    /// Not by way of the writer: key by key, as the page nests them.
    @Test func everyKeyStandsThereOnceWithItsDefault() throws {
        var found: [String: String] = [:]
        var path: [String] = []
        for line in try Self.text().split(separator: "\n") {
            if line.hasPrefix("# pools:") { break }
            var text = line
            let indent = text.prefix { $0 == " " }.count
            text = text.dropFirst(indent)
            let isExample = text.hasPrefix("# ") && text.dropFirst(2).firstRange(of: /^[a-z_]+: \//) != nil
            if text.hasPrefix("#") && !isExample { continue }
            if isExample { text = text.dropFirst(2) }
            let parts = text.split(separator: ":", maxSplits: 1)
            path = Array(path.prefix(indent / 2)) + [String(parts[0])]
            let value = parts.count == 2 ? parts[1].drop { $0 == " " } : ""
            if value.isEmpty { continue }
            #expect(found.updateValue(isExample ? "" : String(value), forKey: path.joined(separator: ".")) == nil)
        }
        let bare = Configuration(socketPath: "", controlPath: "", pools: [])
        for key in ConfigurationKey<Configuration>.daemon { #expect(found.removeValue(forKey: key.name) == key.show(bare), "\(key.name)") }
        let pool = PoolConfiguration(name: "", module: "", python: "python3")
        for key in ConfigurationKey<PoolConfiguration>.pool where key.name != "module" {
            #expect(found.removeValue(forKey: "defaults." + key.name).map { $0 == "python3" ? $0 : $0 } == key.show(pool), "\(key.name)")
        }
        #expect(found.isEmpty, "\(found.keys)")
    }

    @Test func loadingItGivesTheDefaults() throws {
        guard case .loaded(let loaded) = ConfigurationSource(file: Self.path).load() else {
            Issue.record("refused")
            return
        }
        var bare = Configuration(socketPath: loaded.configuration.socketPath, controlPath: loaded.configuration.socketPath + ".control", pools: [])
        bare.file = Self.path
        #expect(loaded.configuration == bare)
        // A pool of nothing but defaults, once without and once with the reference's.
        let bench = Bench()
        let plain = try #require(bench.loaded("pools:\n  text: {module: a.b}\n")).configuration.pools
        let page = try Self.text().split(separator: "\n", omittingEmptySubsequences: false).filter { $0 != "pools: {}" }.joined(separator: "\n")
        #expect(try #require(bench.loaded(page + "\npools:\n  text: {module: a.b}\n")).configuration.pools == plain)
    }

    /// No text makes the reader crash or say nothing; every problem fits on one line.
    @Test(arguments: 0..<4) func mutationsGiveAConfigurationOrProblems(_ seed: UInt64) throws {
        let page = Array(
            try Self.text().replacing("pools: {}", with: "pools:\n  text: {module: a.b, warm: [{call: x, arguments: {a: [1, \"b\"]}}]}\n  b:\n    module: c")
                .utf8)
        let pieces = [
            "*a", "&a ", "!!str ", "\"", "'", "[", "]", "{", "}", ": ", "- ", "\n", "\t", "  ", "? ", "|\n", "---\n", "\u{FEFF}", "99999999999999999999",
            "null", "# ", "<<: ",
        ]
        let bench = Bench()
        var state = seed &* 0x9E37_79B9_7F4A_7C15 &+ 1
        func random(_ bound: Int) -> Int {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(bound))
        }
        var taken = 0
        for _ in 0..<600 {
            var text = page
            for _ in 0...random(4) {
                let at = random(text.count)
                switch random(6) {
                case 0: text[at] = UInt8(random(256))
                case 1: text.removeSubrange(at..<min(text.count, at + 1 + random(40)))
                case 2: text.insert(contentsOf: Array(pieces[random(pieces.count)].utf8), at: at)
                case 3: text.insert(contentsOf: text[at..<min(text.count, at + random(200))], at: random(text.count))
                case 4: text = Array(text[..<max(1, at)])
                default: text[at] = text[random(text.count)]
                }
                if text.isEmpty { text = [0x20] }
            }
            bench.write("poold.yaml", text)
            switch bench.load() {
            case .loaded(let loaded):
                taken += 1
                #expect(!loaded.values.isEmpty)
            case .refused(let problems):
                #expect(!problems.isEmpty)
                for problem in problems { #expect(!"\(problem)".utf8.contains(0x0A), "\(problem)") }
            }
        }
        #expect(taken > 0 && taken < 600)
    }
}
