/// Keys by their sections, as a file nests them.
struct KeyTable<Root: Sendable>: Sendable {
    let keys: [ConfigurationKey<Root>]
    private let byName: [String: Int]
    /// Below each section (dotted, with a dot at its end; "" is the root): the names that may stand there.
    private let members: [String: [String]]

    /// besides: names of the root that the caller reads itself.
    init(_ keys: [ConfigurationKey<Root>], besides: [String] = []) {
        self.keys = keys
        var byName: [String: Int] = [:]
        var members: [String: [String]] = ["": besides]
        for (index, key) in keys.enumerated() {
            byName[key.name] = index
            var section = ""
            for part in key.name.split(separator: ".") {
                if members[section]?.contains(String(part)) != true { members[section, default: []].append(String(part)) }
                section += part + "."
            }
        }
        self.byName = byName
        self.members = members
    }

    subscript(name: String) -> ConfigurationKey<Root>? { byName[name].map { keys[$0] } }

    /// One entry of a mapping: a key, a section, or an error. prefix: what stands before the table's names, for messages.
    func read(_ entry: YAMLNode.Entry, section: String = "", prefix: String, _ context: inout ReadContext, _ root: inout Root, _ origins: inout [String: Place])
    {
        let name = section + entry.key
        context.place = entry.keyPlace
        // One key has one form: the reader of the file finds each a second time only by its own words.
        if entry.key.contains(".") {
            return context.problems.add(entry.keyPlace, prefix + name, found: "a key with a dot", allowed: "mappings in mappings", hint: nested(name))
        }
        if let key = self[name] {
            context.key = prefix + name
            context.allowed = key.allowed
            context.read(entry.keyPlace) { key.read(entry.value, &$0, &root) }
            origins[name] = entry.keyPlace
            return
        }
        if let known = members[name + "."] {
            if entry.value.isNull { return }
            guard case .mapping(let entries) = entry.value.content else {
                context.key = prefix + name
                context.allowed = "a mapping of \(known.joined(separator: ", "))"
                for key in keys where key.name.hasPrefix(name + ".") { origins[key.name] = entry.keyPlace }
                return context.read(entry.keyPlace) { $0.refuse(entry.value) }
            }
            for inner in entries { read(inner, section: name + ".", prefix: prefix, &context, &root, &origins) }
            return
        }
        context.problems.add(
            entry.keyPlace, prefix + name, found: "an unknown key", allowed: hint(entry.key, section).isEmpty ? known(section) : "",
            hint: hint(entry.key, section))
    }

    private func known(_ section: String) -> String { (members[section] ?? []).joined(separator: ", ") }

    /// How a known key is written; empty: it is none.
    private func nested(_ name: String) -> String {
        guard self[name] != nil else { return "" }
        let parts = name.split(separator: ".")
        return "write \(parts.dropLast().map { "\($0): {" }.joined())\(parts.last!): …\(String(repeating: "}", count: parts.count - 1))"
    }

    /// The name that was meant: the same one in another section, or one of nearly the same letters, here before elsewhere.
    private func hint(_ word: String, _ section: String) -> String {
        if let elsewhere = keys.first(where: { $0.name.hasSuffix("." + word) || ($0.name == word && !section.isEmpty) }) {
            return "did you mean \(quoted(elsewhere.name))?"
        }
        if let near = EditDistance.nearest(word, members[section] ?? []) { return "did you mean \(quoted(near))?" }
        if let near = EditDistance.nearest(word, keys.flatMap { $0.name.split(separator: ".").suffix(1).map(String.init) }),
            let key = keys.first(where: { $0.name == near || $0.name.hasSuffix("." + near) })
        {
            return "did you mean \(quoted(key.name))?"
        }
        return ""
    }
}
