import PoolCore

/// What a pool's workers are made of: keys with a shape of their own.
extension ConfigurationKey where Root == PoolConfiguration {
    static let module = ConfigurationKey(
        "module", allowed: "a dotted Python module or a path to a .py file", effect: .recycle, about: "What its workers import. Every pool names its own.",
        example: "text.py"
    ) { node, context, pool in
        guard let text = context.text(node) else { return }
        guard text.hasSuffix(".py") else {
            let parts = text.split(separator: ".", omittingEmptySubsequences: false)
            guard parts.allSatisfy({ !$0.isEmpty && $0.allSatisfy { $0 == "_" || $0.isLetter || $0.isNumber } && !$0.first!.isNumber }) else {
                return context.refuse(node)
            }
            guard context.fits("of a module's name", bytes: text.utf8.count) else { return }
            pool.module = text
            return
        }
        let path = Paths.resolved(text, node.place)
        switch Paths.file(path) {
        case .success(let real): pool.module = real
        case .failure(let reason): context.refuse(node, hint: "\(quoted(path)) \(reason.text)")
        }
    } show: {
        FlowText.scalar($0.module)
    }

    static let python = ConfigurationKey(
        "python", allowed: "a path or a name on PATH", effect: .recycle, about: "The Python that runs its workers."
    ) { node, context, pool in
        guard let text = context.text(node) else { return }
        guard let found = Paths.program(text.contains("/") ? Paths.resolved(text, node.place) : text) else {
            return context.refuse(node, hint: "no such program was found; install it or name one with its path")
        }
        pool.python = found
    } show: {
        FlowText.scalar($0.python)
    }

    static let pythonPath = ConfigurationKey(
        "python_path", allowed: "a list of folders", effect: .recycle, about: "Folders in front of the workers' module path."
    ) { node, context, pool in
        guard case .sequence(let items) = node.content else { return context.refuse(node, hint: "write a list: [/srv/python]") }
        pool.pythonPath = items.compactMap { item in
            guard let text = context.text(item) else { return nil }
            guard !text.contains(":") else {
                context.refuse(item, hint: "PYTHONPATH cannot hold a folder with a colon in its name")
                return nil
            }
            return Paths.resolved(text, item.place)
        }
        _ = context.fits("in PYTHONPATH", bytes: ExecutionLimit.bytesOfPythonPath(pool.pythonPath))
    } show: {
        FlowText.list($0.pythonPath.map(FlowText.scalar))
    }

    static let environment = ConfigurationKey(
        "environment", allowed: "a mapping of names to text", effect: .recycle, about: "Added to poold's own environment."
    ) { node, context, pool in
        if node.isNull {
            pool.environment = [:]
            return
        }
        guard case .mapping(let entries) = node.content else { return context.refuse(node, hint: "write a mapping: {OMP_NUM_THREADS: 1}") }
        pool.environment = [:]
        for entry in entries {
            guard !entry.key.isEmpty, !entry.key.utf8.contains(where: { $0 == 0x3D || $0 == 0 }) else {
                context.problems.add(entry.keyPlace, context.key, found: quoted(entry.key), allowed: "names without =")
                continue
            }
            guard entry.key != "PYTHONPATH" else {
                context.problems.add(entry.keyPlace, context.key, found: quoted(entry.key), allowed: "other variables", hint: "python_path is its home")
                continue
            }
            guard case .scalar(let text, _) = entry.value.content, !entry.value.isNull, !text.utf8.contains(0) else {
                context.refuse(entry.value, hint: "text for \(quoted(entry.key)); empty text is \"\"")
                continue
            }
            let bytes = entry.key.utf8.count + 1 + text.utf8.count
            guard context.fits("in \(quoted(entry.key))", bytes: bytes, at: entry.keyPlace, hint: "write it to a file, and name that") else { continue }
            pool.environment[entry.key] = text
        }
    } show: { pool in
        "{" + pool.environment.sorted { $0.key < $1.key }.map { "\(FlowText.scalar($0.key)): \(FlowText.json($0.value))" }.joined(separator: ", ") + "}"
    }

    static let directory = ConfigurationKey(
        "directory", allowed: "a folder", effect: .recycle, about: "Working directory of its workers. Default: poold's own.", example: "/srv/poold"
    ) { node, context, pool in
        guard let text = context.text(node) else { return }
        let path = Paths.resolved(text, node.place)
        guard Paths.isFolder(path) else { return context.refuse(node, hint: "there is no folder \(quoted(path))") }
        pool.directory = path
    } show: {
        $0.directory.map(FlowText.scalar) ?? ""
    }

    static let warm = ConfigurationKey(
        "warm", allowed: "a list of {call: METHOD, arguments: …}, {import: MODULE} and {script: FILE}", effect: .recycle,
        about: "What each worker does, in order, before callers pay for it."
    ) { node, context, pool in
        guard case .sequence(let items) = node.content else { return context.refuse(node) }
        guard items.count <= 256 else { return context.refuse(node, hint: "at most 256 commands") }
        pool.warm = items.compactMap { WarmCommand.read($0, &context) }
        _ = context.fits("in POOLD_WARM", bytes: ExecutionLimit.bytesOfWarming(pool.warm), hint: "a script can do more")
    } show: {
        FlowText.list($0.warm.map(\.flow))
    }
}

extension WarmCommand {
    fileprivate static func read(_ node: YAMLNode, _ context: inout ReadContext) -> WarmCommand? {
        guard case .mapping(let entries) = node.content else {
            context.refuse(node)
            return nil
        }
        var kinds: [YAMLNode.Entry] = []
        var arguments: YAMLNode.Entry?
        for entry in entries {
            switch entry.key {
            case "call", "import", "script": kinds.append(entry)
            case "arguments": arguments = entry
            default:
                let near = EditDistance.nearest(entry.key, ["call", "import", "script", "arguments"])
                context.problems.add(
                    entry.keyPlace, context.key, found: "the unknown key \(quoted(entry.key))", allowed: "call, arguments, import, script",
                    hint: near.map { "did you mean \(quoted($0))?" } ?? "")
            }
        }
        guard kinds.count == 1 else {
            context.problems.add(
                node.place, context.key, found: kinds.isEmpty ? "none of call, import, script" : "several of them",
                allowed: "exactly one of call, import, script")
            return nil
        }
        guard let text = context.text(kinds[0].value) else { return nil }
        if let arguments, kinds[0].key != "call" {
            context.problems.add(arguments.keyPlace, context.key, found: "arguments of \(kinds[0].key)", allowed: "arguments of call")
            return nil
        }
        switch kinds[0].key {
        case "import": return .module(text)
        case "script":
            let path = Paths.resolved(text, kinds[0].value.place)
            switch Paths.file(path) {
            case .success(let real): return .script(real)
            case .failure(let reason):
                context.refuse(kinds[0].value, hint: "\(quoted(path)) \(reason.text)")
                return nil
            }
        default:
            guard let arguments else { return .call(method: text, arguments: "{}") }
            return .call(method: text, arguments: arguments.value.json)
        }
    }

    package var flow: String {
        switch self {
        case .call(let method, let arguments): "{call: \(FlowText.scalar(method)), arguments: \(arguments)}"
        case .module(let name): "{import: \(FlowText.scalar(name))}"
        case .script(let path): "{script: \(FlowText.scalar(path))}"
        }
    }
}

extension YAMLNode {
    /// As JSON, by YAML's core schema: plain words are null, true, false and numbers where JSON has them, and text otherwise.
    var json: String {
        switch content {
        case .sequence(let items): return "[" + items.map(\.json).joined(separator: ", ") + "]"
        case .mapping(let entries): return "{" + entries.map { "\(FlowText.json($0.key)): \($0.value.json)" }.joined(separator: ", ") + "}"
        case .refused: return "null"
        case .scalar(let text, let isPlain):
            if isNull { return "null" }
            guard isPlain else { return FlowText.json(text) }
            switch text {
            case "true", "True", "TRUE": return "true"
            case "false", "False", "FALSE": return "false"
            default: return Self.isNumber(text) ? text : FlowText.json(text)
            }
        }
    }

    /// -? digits without a leading zero, then at most a fraction and an exponent: what JSON takes for a number.
    static func isNumber(_ text: String) -> Bool {
        var rest = Substring(text)
        func digits() -> Int {
            let count = rest.utf8.prefix { (0x30...0x39).contains($0) }.count
            rest = rest.dropFirst(count)
            return count
        }
        if rest.first == "-" { rest.removeFirst() }
        let startsWithZero = rest.first == "0"
        let whole = digits()
        guard whole > 0, !(startsWithZero && whole > 1) else { return false }
        if rest.first == "." {
            rest.removeFirst()
            guard digits() > 0 else { return false }
        }
        if rest.first == "e" || rest.first == "E" {
            rest.removeFirst()
            if rest.first == "+" || rest.first == "-" { rest.removeFirst() }
            guard digits() > 0 else { return false }
        }
        return rest.isEmpty
    }
}
