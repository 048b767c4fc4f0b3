/// The name that a mistyped one was meant to be.
package enum EditDistance {
    /// The nearest of the known names, if it is near enough to be meant.
    package static func nearest(_ word: String, _ known: [String]) -> String? {
        let limit = max(1, word.utf8.count / 3)
        guard word.utf8.count <= 64 else { return nil }
        return known.map { (name: $0, distance: between(word, $0)) }.filter { $0.distance <= limit }.min { $0.distance < $1.distance }?.name
    }

    /// Letters to insert, delete, replace or swap with a neighbour.
    static func between(_ left: String, _ right: String) -> Int {
        let a = Array(left.utf8)
        let b = Array(right.utf8)
        var rows = [Array(0...b.count)]
        for (i, x) in a.enumerated() {
            var row = [i + 1]
            for (j, y) in b.enumerated() {
                var best = min(rows[i][j + 1] + 1, row[j] + 1, rows[i][j] + (x == y ? 0 : 1))
                if i > 0, j > 0, x == b[j - 1], a[i - 1] == y { best = min(best, rows[i - 1][j - 1] + 1) }
                row.append(best)
            }
            rows.append(row)
        }
        return rows[a.count][b.count]
    }
}
