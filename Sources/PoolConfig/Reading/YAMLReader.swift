// libyaml as Yams bundles it. Yams' own composer expands aliases, knows no limit of depth and ends at the first duplicate key;
// its events have what is wanted here: every place, and a say on every node.
import CYaml

/// Text → nodes, with every anchor, alias, tag and duplicate key refused by its line.
struct YAMLReader: ~Copyable {
    static let maximumDepth = 32

    /// On the heap: it holds pointers to itself.
    private let parser: UnsafeMutablePointer<yaml_parser_t>
    private let file: String
    private var problems = ProblemList()
    /// Keys on the way to what is read.
    private var path: [String]
    /// libyaml cannot go on after an error of syntax.
    private var isBroken = false

    /// The one document of a text; nil: it has none, or none that can be read. section: what its keys stand under.
    static func read(_ text: String, file: String, section: [String] = [], problems: inout ProblemList) -> YAMLNode? {
        var text = text
        return text.withUTF8 { bytes in
            var reader = YAMLReader(file: file, section: section, problems: problems)
            yaml_parser_set_encoding(reader.parser, YAML_UTF8_ENCODING)
            yaml_parser_set_input_string(reader.parser, bytes.baseAddress, bytes.count)
            let node = reader.document(bytes)
            problems = reader.problems
            return node
        }
    }

    private init(file: String, section: [String], problems: ProblemList) {
        self.file = file
        path = section
        self.problems = problems
        parser = .allocate(capacity: 1)
        parser.initialize(to: yaml_parser_t())
        yaml_parser_initialize(parser)
    }

    deinit {
        yaml_parser_delete(parser)
        parser.deallocate()
    }

    private mutating func document(_ bytes: UnsafeBufferPointer<UInt8>) -> YAMLNode? {
        var root: YAMLNode?
        while let event = next(bytes) {
            switch event.kind {
            case YAML_STREAM_START_EVENT, YAML_DOCUMENT_END_EVENT: continue
            case YAML_DOCUMENT_START_EVENT:
                if root != nil {
                    problems.add(event.place, found: "a second document", allowed: "one document in a file")
                    return nil
                }
                guard let first = next(bytes) else { return nil }
                root = node(first, depth: 0, bytes)
            case YAML_STREAM_END_EVENT: return isBroken ? nil : root
            default: return nil
            }
        }
        return nil
    }

    private struct Event {
        var kind: yaml_event_type_t
        var place: Place
        var text = ""
        var isPlain = false
    }

    /// The next event; nil: the text is no YAML, and that was said.
    private mutating func next(_ bytes: UnsafeBufferPointer<UInt8>) -> Event? {
        guard !isBroken else { return nil }
        var raw = yaml_event_t()
        guard yaml_parser_parse(parser, &raw) == 1 else {
            isBroken = true
            complain(bytes)
            return nil
        }
        defer { yaml_event_delete(&raw) }
        var event = Event(kind: raw.type, place: Place(file: file, line: Int(raw.start_mark.line) + 1, column: Int(raw.start_mark.column) + 1))
        var anchor: UnsafeMutablePointer<yaml_char_t>?
        var tag: UnsafeMutablePointer<yaml_char_t>?
        switch raw.type {
        case YAML_SCALAR_EVENT:
            let scalar = raw.data.scalar
            (anchor, tag) = (scalar.anchor, scalar.tag)
            event.text = String(decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
            event.isPlain = scalar.style == YAML_PLAIN_SCALAR_STYLE
        case YAML_SEQUENCE_START_EVENT: (anchor, tag) = (raw.data.sequence_start.anchor, raw.data.sequence_start.tag)
        case YAML_MAPPING_START_EVENT: (anchor, tag) = (raw.data.mapping_start.anchor, raw.data.mapping_start.tag)
        case YAML_ALIAS_EVENT:
            problems.add(
                event.place, found: "the alias \(quoted("*" + String(cString: raw.data.alias.anchor)))", allowed: "values written out",
                hint: "what every pool shares stands under `defaults`; text that begins with * stands in quotes")
        default: break
        }
        if let anchor {
            problems.add(
                event.place, found: "the anchor \(quoted("&" + String(cString: anchor)))", allowed: "values written out",
                hint: "what every pool shares stands under `defaults`; text that begins with & stands in quotes")
        }
        if let tag {
            problems.add(
                event.place, found: "the tag \(quoted(String(cString: tag)))", allowed: "values without tags", hint: "text that begins with ! stands in quotes")
        }
        return event
    }

    private mutating func node(_ event: Event, depth: Int, _ bytes: UnsafeBufferPointer<UInt8>) -> YAMLNode {
        let refused = YAMLNode(content: .refused, place: event.place)
        guard depth < Self.maximumDepth else {
            problems.add(event.place, found: "more than \(Self.maximumDepth) levels of nesting", allowed: "at most so many")
            isBroken = true
            return refused
        }
        switch event.kind {
        case YAML_SCALAR_EVENT: return YAMLNode(content: .scalar(event.text, isPlain: event.isPlain), place: event.place)
        case YAML_SEQUENCE_START_EVENT:
            var items: [YAMLNode] = []
            while let item = next(bytes) {
                if item.kind == YAML_SEQUENCE_END_EVENT { return YAMLNode(content: .sequence(items), place: event.place) }
                items.append(node(item, depth: depth + 1, bytes))
            }
            return refused
        case YAML_MAPPING_START_EVENT:
            var entries: [YAMLNode.Entry] = []
            var places: [String: Place] = [:]
            while let keyEvent = next(bytes) {
                if keyEvent.kind == YAML_MAPPING_END_EVENT { return YAMLNode(content: .mapping(entries), place: event.place) }
                let key = node(keyEvent, depth: depth + 1, bytes)
                guard let valueEvent = next(bytes) else { return refused }
                if case .scalar(let text, _) = key.content { path.append(text) } else { path.append("?") }
                defer { path.removeLast() }
                let value = node(valueEvent, depth: depth + 1, bytes)
                switch key.content {
                case .scalar(let text, _):
                    if let first = places[text] {
                        problems.add(
                            key.place, path.joined(separator: "."), found: "the key \(quoted(text)) a second time", allowed: "each key once",
                            hint: "the first is in line \(first.line)")
                        continue
                    }
                    places[text] = key.place
                    entries.append(YAMLNode.Entry(key: text, keyPlace: key.place, value: value))
                case .sequence, .mapping: problems.add(key.place, found: "\(key.description) as a key", allowed: "a word")
                case .refused: continue
                }
            }
            return refused
        default: return refused
        }
    }

    /// What libyaml dislikes, by its line.
    private mutating func complain(_ bytes: UnsafeBufferPointer<UInt8>) {
        var place = Place(file: file, line: Int(parser.pointee.problem_mark.line) + 1, column: Int(parser.pointee.problem_mark.column) + 1)
        if parser.pointee.error == YAML_READER_ERROR {
            let before = bytes.prefix(Int(parser.pointee.problem_offset))
            place.line = before.reduce(1) { $0 + ($1 == 0x0A ? 1 : 0) }
            place.column = 0
        }
        let text = parser.pointee.problem.map { String(cString: $0) } ?? "an error that libyaml does not name"
        var hint = ""
        if text.contains("cannot start any token") { hint = "text that begins with @, ` or % stands in quotes; indent with spaces, not tabs" }
        if let context = parser.pointee.context, parser.pointee.context_mark.line != parser.pointee.problem_mark.line {
            hint += (hint.isEmpty ? "" : "; ") + "\(String(cString: context)) that begins in line \(parser.pointee.context_mark.line + 1)"
        }
        problems.add(place, found: "no valid YAML: \(text)", hint: hint)
    }
}
