import PoolCore

/// The tables, made once.
enum Tables {
    static let daemon = KeyTable(ConfigurationKey<Configuration>.daemon, besides: ["defaults", "pools"])
    static let pool = KeyTable(ConfigurationKey<PoolConfiguration>.pool)
}

/// A pool while it is read, with the place of each of its values.
struct PoolDraft {
    var pool: PoolConfiguration
    var origins: [String: Place] = [:]
    /// Where it was named.
    var place: Place
    /// It is no mapping, or the defaults are none.
    var isRefused = false

    init(name: String, place: Place) {
        pool = PoolConfiguration(name: name, module: "", python: Self.defaultPython)
        self.place = place
    }

    static let defaultPython = "python3"
}

/// Files and options → one configuration, or every problem of theirs.
struct ConfigurationLoader {
    static let maximumPools = Configuration.maximumPools
    static let maximumPoolFiles = 1024

    var context = ReadContext()
    var configuration = Configuration(socketPath: "", controlPath: "", pools: [])
    var origins: [String: Place] = [:]
    private var defaults = PoolDraft(name: "", place: Place(file: ""))
    private var named: [(entry: YAMLNode.Entry, prefix: String)] = []
    var drafts: [PoolDraft] = []

    mutating func load(_ source: ConfigurationSource) -> ConfigurationResult {
        if let file = source.file {
            configuration.file = file
            readFile(file)
            readPoolsFolder(beside: file)
        }
        for (entry, _) in named { addPool(entry) }
        addOptions(source)
        for index in drafts.indices where drafts[index].origins["max_workers"] == nil {
            drafts[index].pool.policy.maximumWorkers = PoolConfiguration.defaultMaximumWorkers(workers: drafts[index].pool.policy.workers)
        }
        findPython()
        if configuration.socketPath.isEmpty { configuration.socketPath = Paths.runtimeFolder() + "/poold.sock" }
        if configuration.controlPath.isEmpty { configuration.controlPath = configuration.socketPath + ".control" }
        check(source.file)
        let values = values()
        finish()
        let problems = context.problems.sorted
        return problems.isEmpty ? .loaded(LoadedConfiguration(configuration: configuration, values: values)) : .refused(problems)
    }

    // MARK: - Files

    /// The mapping at the root of a file; nil: there is none, and that was said.
    private mutating func entries(_ file: String, section: [String] = []) -> [YAMLNode.Entry]? {
        switch TextFile.read(file) {
        case .failure(let problem):
            context.problems.add(problem.place, found: problem.found, allowed: problem.allowed, hint: problem.hint)
            return nil
        case .success(let text):
            let before = context.problems.problems.count
            guard let root = YAMLReader.read(text, file: file, section: section, problems: &context.problems) else {
                if context.problems.problems.count == before {
                    context.problems.add(Place(file: file), found: "an empty file", allowed: "a mapping, like `pools: {text: {module: text.py}}`")
                }
                return nil
            }
            guard case .mapping(let entries) = root.content else {
                if case .refused = root.content { return nil }
                context.problems.add(root.place, found: root.isNull ? "an empty file" : root.description, allowed: "a mapping of \(Self.sections)")
                return nil
            }
            return entries
        }
    }

    private static let sections = "daemon, log, roles, limits, defaults, pools"

    private mutating func readFile(_ file: String) {
        guard let entries = entries(file) else { return }
        for entry in entries {
            switch entry.key {
            case "pools":
                if entry.value.isNull { continue }
                guard case .mapping(let pools) = entry.value.content else {
                    context.key = "pools"
                    context.allowed = "a mapping of names to pools"
                    context.refuse(entry.value)
                    continue
                }
                for pool in pools { named.append((pool, "pools.")) }
            case "defaults":
                var draft = PoolDraft(name: "", place: entry.keyPlace)
                readPool(entry.value, prefix: "defaults.", &draft, isDefaults: true)
                defaults = draft
            default: Tables.daemon.read(entry, prefix: "", &context, &configuration, &origins)
            }
        }
    }

    private mutating func readPoolsFolder(beside file: String) {
        let parent = file.lastIndex(of: "/").map { String(file[...$0]) } ?? ""
        let folder = parent + "pools.d"
        switch Paths.yamlFiles(folder) {
        case nil: return
        case .failure(let reason): context.problems.add(Place(file: folder), found: "a folder that cannot be read: \(reason.text)")
        case .success(let names):
            guard names.count <= Self.maximumPoolFiles else {
                return context.problems.add(Place(file: folder), found: "\(names.count) files", allowed: "at most \(Self.maximumPoolFiles)")
            }
            for name in names {
                for entry in entries("\(folder)/\(name)", section: ["pools"]) ?? [] {
                    if entry.key == "pools", case .mapping(let inner) = entry.value.content, !inner.contains(where: { $0.key == "module" }) {
                        context.problems.add(
                            entry.keyPlace, "pools", found: "the key pools", allowed: "names of pools",
                            hint: "a file in pools.d is the mapping under `pools`: leave this line out")
                        continue
                    }
                    named.append((entry, "pools."))
                }
            }
        }
    }

    private mutating func readPool(_ node: YAMLNode, prefix: String, _ draft: inout PoolDraft, isDefaults: Bool = false) {
        if node.isNull { return }
        guard case .mapping(let entries) = node.content else {
            context.key = String(prefix.dropLast())
            context.allowed = "a mapping of a pool's keys, like {module: text.py, workers: 4}"
            draft.isRefused = true
            return context.refuse(node)
        }
        for entry in entries {
            if isDefaults && entry.key == "module" {
                context.problems.add(entry.keyPlace, prefix + "module", found: "a module for every pool", hint: "each pool names its own")
                continue
            }
            Tables.pool.read(entry, prefix: prefix, &context, &draft.pool, &draft.origins)
        }
    }

    /// Up to 64 letters, digits, - and _: what a call may name.
    package static func isName(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy { $0 == 0x2D || $0 == 0x5F || (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) }
    }

    private mutating func addPool(_ entry: YAMLNode.Entry) {
        let key = "pools.\(entry.key)"
        guard Self.isName(entry.key) else {
            return context.problems.add(entry.keyPlace, "pools", found: "the name \(quoted(entry.key))", allowed: "1 to 64 letters, digits, - and _")
        }
        if case .refused = entry.value.content { return }
        if let first = drafts.first(where: { $0.pool.name == entry.key }) {
            return context.problems.add(
                entry.keyPlace, key, found: "the pool a second time", allowed: "each pool once", hint: "the first is at \(first.place.text)")
        }
        guard drafts.count < Self.maximumPools else {
            if drafts.count == Self.maximumPools, !context.problems.problems.contains(where: { $0.key == "pools" && $0.found == Self.tooMany }) {
                context.problems.add(entry.keyPlace, "pools", found: Self.tooMany, allowed: "at most \(Self.maximumPools)")
            }
            return
        }
        var draft = defaults
        draft.pool.name = entry.key
        draft.place = entry.keyPlace
        readPool(entry.value, prefix: key + ".", &draft)
        drafts.append(draft)
    }

    private static let tooMany = "one pool too many"

    // MARK: - Options

    private mutating func addOptions(_ source: ConfigurationSource) {
        if source.isEmbedded { addExamples() }
        for option in source.pools {
            let place = Place.option("--pool \(option.name)=\(option.module)")
            let scalar = YAMLNode(content: .scalar(option.module, isPlain: true), place: place)
            let module = YAMLNode.Entry(key: "module", keyPlace: place, value: scalar)
            addPool(YAMLNode.Entry(key: option.name, keyPlace: place, value: YAMLNode(content: .mapping([module]), place: place)))
        }
        for override in source.overrides {
            let place = Place.option(override.option)
            let scalars = override.values.map { YAMLNode(content: .scalar($0, isPlain: true), place: place) }
            let node = override.isList ? YAMLNode(content: .sequence(scalars), place: place) : scalars[0]
            context.key = ""
            context.place = place
            if let key = Tables.daemon[override.key] {
                context.allowed = key.allowed
                context.read(place) { key.read(node, &$0, &configuration) }
                origins[key.name] = place
            } else if let key = Tables.pool[override.key] {
                context.allowed = key.allowed
                // Once for its problems, then for each pool.
                var scratch = PoolDraft(name: "", place: place)
                context.read(place) { key.read(node, &$0, &scratch.pool) }
                for index in drafts.indices {
                    var silent = ReadContext()
                    key.read(node, &silent, &drafts[index].pool)
                    drafts[index].origins[key.name] = place
                }
            } else {
                preconditionFailure("option \(override.option) stands for \(override.key), which is no key")
            }
        }
    }

    private mutating func addExamples() {
        let place = Place(file: "default")
        guard let package = Paths.packageFolder() else {
            return context.problems.add(
                place, found: "no pool, and the example pools are not installed beside poold", allowed: "a file (--config FILE) or pools (--pool NAME=MODULE)")
        }
        for name in ["text", "vectors"] {
            var draft = PoolDraft(name: name, place: place)
            draft.pool.module = "\(package)/examples/\(name).py"
            drafts.append(draft)
        }
    }

    // MARK: - The result

    /// Which file `python3` is: a reload compares that, so it is what is shown.
    private mutating func findPython() {
        let unnamed = drafts.indices.filter { drafts[$0].origins["python"] == nil }
        guard !unnamed.isEmpty, let python = Paths.program(PoolDraft.defaultPython) else { return }
        for index in unnamed { drafts[index].pool.python = python }
    }

    private func values() -> [ConfigurationValue] {
        func origin(_ place: Place?) -> String { place?.origin ?? "default" }
        var values = Tables.daemon.keys.map { ConfigurationValue(key: $0.name, value: $0.show(configuration), origin: origin(origins[$0.name])) }
        for draft in drafts {
            values += Tables.pool.keys.map {
                ConfigurationValue(key: "pools.\(draft.pool.name).\($0.name)", value: $0.show(draft.pool), origin: origin(draft.origins[$0.name]))
            }
        }
        return values
    }

    /// Adds what no key says: where the workers' own package lies.
    private mutating func finish() {
        let package = Paths.packageFolder()
        for index in drafts.indices {
            if let package { drafts[index].pool.pythonPath.append(package) }
        }
        configuration.pools = drafts.map(\.pool)
    }
}
