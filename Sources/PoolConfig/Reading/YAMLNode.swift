/// A value of a YAML file with its place.
struct YAMLNode: Sendable {
    enum Content: Sendable {
        /// Its text; plain: written without quotes, so it may be a number, a truth or nothing.
        case scalar(String, isPlain: Bool)
        case sequence([YAMLNode])
        case mapping([Entry])
        /// Refused already: nothing more is said about it.
        case refused
    }

    struct Entry: Sendable {
        var key: String
        var keyPlace: Place
        var value: YAMLNode
    }

    var content: Content
    var place: Place

    /// Nothing was written.
    var isNull: Bool {
        guard case .scalar(let text, isPlain: true) = content else { return false }
        return text.isEmpty || text == "~" || text == "null" || text == "Null" || text == "NULL"
    }

    /// For a message.
    var description: String {
        switch content {
        case .scalar(let text, let isPlain): isNull && isPlain ? "nothing" : quoted(text)
        case .sequence: "a list"
        case .mapping: "a mapping"
        case .refused: "something that was refused"
        }
    }
}
