/// A cell: its text, and what its state is.
struct Cell: ExpressibleByStringInterpolation {
    var text: String
    var tone = Tone.plain

    init(_ text: String, _ tone: Tone = .plain) {
        self.text = text
        self.tone = tone
    }
    init(stringLiteral text: String) { self.text = text }
    /// A word that names a state.
    static func state(_ text: String) -> Cell { Cell(text, Tone.of(text)) }
}

struct Column {
    enum Alignment { case left, right }
    var title: String
    var alignment = Alignment.left
    /// 0 always stays; of the others the highest go first when the width does not suffice.
    var rank = 0
    /// May be cut with an ellipsis.
    var canShrink = false

    static func left(_ title: String, rank: Int = 0, canShrink: Bool = false) -> Column { Column(title: title, rank: rank, canShrink: canShrink) }
    static func right(_ title: String, rank: Int = 0) -> Column { Column(title: title, alignment: .right, rank: rank) }
}

/// Rows under titles, fitted to the reader's width: columns of a high rank are left out, then long texts are cut. In a pipe nothing is
/// cut, and columns are chosen for 80.
struct Table {
    static let shortestCut = 6
    var columns: [Column]
    var rows: [[Cell]] = []

    init(_ columns: [Column]) { self.columns = columns }

    mutating func add(_ cells: [Cell]) {
        precondition(cells.count == columns.count, "a row has \(cells.count) cells and the table \(columns.count) columns")
        // What is shown may come from a worker: one line, and nothing that a terminal would obey.
        rows.append(cells.map { Cell(Format.visible($0.text).split(separator: "\n").joined(separator: " "), $0.tone) })
    }

    func lines(_ style: Style, indent: Int = 0) -> [String] {
        var widths = columns.indices.map { column in max(columns[column].title.count, rows.map { $0[column].text.count }.max() ?? 0) }
        var shown = Array(columns.indices)
        // A column without a value in any row tells nothing.
        shown.removeAll { column in columns[column].rank > 0 && !rows.isEmpty && rows.allSatisfy { $0[column].text.isEmpty } }
        let available = (style.width ?? 80) - indent
        func total() -> Int { shown.reduce(0) { $0 + widths[$1] } + 2 * max(0, shown.count - 1) }
        while total() > available, let last = shown.filter({ columns[$0].rank > 0 }).max(by: { columns[$0].rank < columns[$1].rank }) {
            shown.removeAll { $0 == last }
        }
        if style.width != nil {
            while total() > available,
                let widest = shown.filter({ columns[$0].canShrink && widths[$0] > Self.shortestCut }).max(by: { widths[$0] < widths[$1] })
            {
                widths[widest] -= 1
            }
        }
        let margin = String(repeating: " ", count: indent)
        var lines = [margin + line(shown, widths, shown.map { Cell(columns[$0].title, .faint) }, style)]
        for row in rows { lines.append(margin + line(shown, widths, shown.map { row[$0] }, style)) }
        return lines
    }

    private func line(_ shown: [Int], _ widths: [Int], _ cells: [Cell], _ style: Style) -> String {
        var text = ""
        for (position, cell) in cells.enumerated() {
            let width = widths[shown[position]]
            let content = cell.text.count > width ? String(cell.text.prefix(max(0, width - 1))) + "…" : cell.text
            let space = String(repeating: " ", count: max(0, width - content.count))
            let isLast = position == cells.count - 1
            switch columns[shown[position]].alignment {
            case .left: text += style.paint(content, cell.tone) + (isLast ? "" : space)
            case .right: text += space + style.paint(content, cell.tone)
            }
            if !isLast { text += "  " }
        }
        // A last cell that is empty leaves the space before it.
        while text.last == " " { text.removeLast() }
        return text
    }
}
