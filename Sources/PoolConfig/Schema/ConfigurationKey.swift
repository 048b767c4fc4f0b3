import PoolCore

/// What a reload does about a key that changed.
package enum ChangeEffect: String, Sendable, CaseIterable {
    /// Holds at once.
    case live
    /// The pool's workers are replaced, make before break.
    case recycle
    /// A pool more.
    case added
    /// A pool less.
    case removed
    /// Holds after a restart of poold.
    case restart
}

/// One key of the configuration: what it is called, what it takes, what it does. Reading, `config show`, the difference
/// and the reference all come from these.
package struct ConfigurationKey<Root: Sendable>: Sendable {
    /// Dotted, below `pools.NAME` or the file's root.
    package let name: String
    /// What it takes, for a message and the reference.
    package let allowed: String
    package let effect: ChangeEffect
    /// One line.
    package let about: String
    /// Stands in the reference as a comment, because its default is not a value: an example.
    package let example: String?
    let read: @Sendable (YAMLNode, inout ReadContext, inout Root) -> Void
    package let show: @Sendable (Root) -> String

    init(
        _ name: String, allowed: String, effect: ChangeEffect, about: String, example: String? = nil,
        read: @escaping @Sendable (YAMLNode, inout ReadContext, inout Root) -> Void, show: @escaping @Sendable (Root) -> String
    ) {
        self.name = name
        self.allowed = allowed
        self.effect = effect
        self.about = about
        self.example = example
        self.read = read
        self.show = show
    }
}

/// What reading a value needs to know and may complain to.
struct ReadContext {
    var problems = ProblemList()
    /// The key at hand, dotted, from the file's root.
    var key = ""
    var allowed = ""
    /// Where it is named.
    var place = Place(file: "")
    /// Where keys are named whose values were refused: what holds for them is not what stands there.
    private var refused: [Place] = []

    /// Reads the value of one key that is named at `place`.
    mutating func read(_ place: Place, _ body: (inout ReadContext) -> Void) {
        let before = problems.problems.count
        body(&self)
        if problems.problems.count > before { refused.append(place) }
    }

    func isRefused(_ place: Place) -> Bool { refused.contains(place) }

    mutating func refuse(_ node: YAMLNode, hint: String = "") {
        if case .refused = node.content { return }
        problems.add(node.place, key, found: node.description, allowed: allowed, hint: hint)
    }

    /// The text of a scalar that is not empty.
    mutating func text(_ node: YAMLNode) -> String? {
        guard case .scalar(let text, _) = node.content, !node.isNull, !text.isEmpty else {
            refuse(node)
            return nil
        }
        guard !text.utf8.contains(0) else {
            refuse(node, hint: "a NUL cannot be passed on")
            return nil
        }
        return text
    }

    /// The text of a scalar without quotes.
    mutating func plain(_ node: YAMLNode) -> String? {
        guard case .scalar(let text, let isPlain) = node.content, !node.isNull else {
            refuse(node)
            return nil
        }
        guard isPlain else {
            refuse(node, hint: "write it without quotes")
            return nil
        }
        return text
    }
}

/// A whole number, in decimal digits.
private func number<Number: FixedWidthInteger & Sendable>(_ text: String, _ range: ClosedRange<Number>) -> Number? {
    guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let value = Number(text), range.contains(value) else { return nil }
    return value
}

// The kinds of values.
extension ConfigurationKey {
    static func whole<Number: FixedWidthInteger & Sendable>(
        _ name: String, _ path: any WritableKeyPath<Root, Number> & Sendable, _ range: ClosedRange<Number>, _ about: String, _ effect: ChangeEffect = .live
    ) -> Self {
        Self(name, allowed: "a whole number from \(range.lowerBound) to \(range.upperBound)", effect: effect, about: about) { node, context, root in
            guard let text = context.plain(node) else { return }
            guard let value = number(text, range) else { return context.refuse(node) }
            root[keyPath: path] = value
        } show: {
            "\($0[keyPath: path])"
        }
    }

    static func percent(
        _ name: String, _ path: any WritableKeyPath<Root, UInt64> & Sendable, _ range: ClosedRange<UInt64>, _ about: String, _ effect: ChangeEffect = .live
    ) -> Self {
        Self(name, allowed: "\(range.lowerBound)% to \(range.upperBound)%", effect: effect, about: about) { node, context, root in
            guard let text = context.plain(node) else { return }
            guard text.hasSuffix("%"), let value = number(String(text.dropLast()), range) else { return context.refuse(node) }
            root[keyPath: path] = value
        } show: {
            "\($0[keyPath: path])%"
        }
    }

    static func span(
        _ name: String, _ path: any WritableKeyPath<Root, Nanoseconds> & Sendable, _ range: ClosedRange<Nanoseconds>, _ about: String,
        _ effect: ChangeEffect = .live
    ) -> Self {
        let allowed = "a span from \(SpanText.text(range.lowerBound)) to \(SpanText.text(range.upperBound))"
        return Self(name, allowed: allowed, effect: effect, about: about) { node, context, root in
            guard let text = context.plain(node) else { return }
            guard let value = SpanText.nanoseconds(text) else { return context.refuse(node, hint: "write it like 10s, 200ms, 5m, 1h, or as seconds") }
            guard range.contains(value) else { return context.refuse(node) }
            root[keyPath: path] = value
        } show: {
            SpanText.text($0[keyPath: path])
        }
    }

    static func size<Number: FixedWidthInteger & Sendable>(
        _ name: String, _ path: any WritableKeyPath<Root, Number> & Sendable, _ range: ClosedRange<UInt64>, _ about: String, _ effect: ChangeEffect = .live
    ) -> Self {
        let allowed = "a size from \(SizeText.text(range.lowerBound)) to \(SizeText.text(range.upperBound))"
        return Self(name, allowed: allowed, effect: effect, about: about) { node, context, root in
            guard let text = context.plain(node) else { return }
            guard let bytes = SizeText.bytes(text) else { return context.refuse(node, hint: "write it like 64MiB, 256KiB, or as bytes") }
            guard range.contains(bytes), let value = Number(exactly: bytes) else { return context.refuse(node) }
            root[keyPath: path] = value
        } show: {
            SizeText.text(UInt64($0[keyPath: path]))
        }
    }

    /// One of the cases of a type, by their names in snake case.
    static func choice<Choice: Sendable & Equatable>(
        _ name: String, _ path: any WritableKeyPath<Root, Choice> & Sendable, _ choices: [(name: String, value: Choice)], _ about: String,
        _ effect: ChangeEffect = .live
    ) -> Self {
        Self(name, allowed: choices.map(\.name).joined(separator: ", "), effect: effect, about: about) { node, context, root in
            guard let text = context.text(node) else { return }
            guard let found = choices.first(where: { $0.name == text }) else {
                let near = EditDistance.nearest(text, choices.map(\.name))
                return context.refuse(node, hint: near.map { "did you mean \(quoted($0))?" } ?? "")
            }
            root[keyPath: path] = found.value
        } show: { root in
            choices.first { $0.value == root[keyPath: path] }?.name ?? "?"
        }
    }

    static func flag(
        _ name: String, _ path: any WritableKeyPath<Root, Bool> & Sendable, _ about: String, _ effect: ChangeEffect = .live
    ) -> Self {
        Self(name, allowed: "true or false", effect: effect, about: about) { node, context, root in
            guard let text = context.plain(node) else { return }
            switch text.lowercased() {
            case "true", "yes", "on": root[keyPath: path] = true
            case "false", "no", "off": root[keyPath: path] = false
            default: context.refuse(node)
            }
        } show: {
            $0[keyPath: path] ? "true" : "false"
        }
    }

    /// Permissions of a file, in octal.
    static func mode(
        _ name: String, _ path: any WritableKeyPath<Root, Int32> & Sendable, _ about: String, _ effect: ChangeEffect = .live
    ) -> Self {
        Self(name, allowed: "an octal mode from 0600 to 0777", effect: effect, about: about) { node, context, root in
            guard case .scalar(var text, _) = node.content else { return context.refuse(node) }
            if text.hasPrefix("0o") { text.removeFirst(2) }
            guard (3...4).contains(text.utf8.count), let value = Int32(text, radix: 8), (0o600...0o777).contains(value), value & 0o600 == 0o600 else {
                return context.refuse(node)
            }
            root[keyPath: path] = value
        } show: {
            "0" + String($0[keyPath: path], radix: 8)
        }
    }

    static func path(
        _ name: String, _ path: any WritableKeyPath<Root, String> & Sendable, _ about: String, _ effect: ChangeEffect, example: String? = nil
    ) -> Self {
        Self(name, allowed: "a path", effect: effect, about: about, example: example) { node, context, root in
            guard let text = context.text(node) else { return }
            root[keyPath: path] = Paths.resolved(text, node.place)
        } show: {
            $0[keyPath: path].isEmpty ? "" : FlowText.scalar($0[keyPath: path])
        }
    }

    static func principals(
        _ name: String, _ path: any WritableKeyPath<Root, [Principal]> & Sendable, _ about: String, _ effect: ChangeEffect = .live
    ) -> Self {
        Self(name, allowed: "a list of \"*\" (everybody), users and \"@groups\", by name or number", effect: effect, about: about) { node, context, root in
            guard case .sequence(let items) = node.content else { return context.refuse(node, hint: "write a list: [alice, \"@staff\"]") }
            var principals: [Principal] = []
            for item in items {
                guard let text = context.text(item) else { continue }
                switch Principals.read(text) {
                case .success(let principal): if !principals.contains(principal) { principals.append(principal) }
                case .failure(let unknown): context.refuse(item, hint: unknown.reason)
                }
            }
            root[keyPath: path] = principals
        } show: {
            FlowText.list($0[keyPath: path].map { FlowText.scalar(Principals.text($0)) })
        }
    }
}
