/// The name that was probably meant.
enum Nearest {
    /// The closest candidate, if it is close enough to be a typing mistake.
    static func match(_ name: String, among candidates: [String]) -> String? {
        let limit = max(1, min(3, name.count / 2))
        let ranked = candidates.map { ($0, distance(Array(name.lowercased().utf8), Array($0.lowercased().utf8))) }
        if let best = ranked.min(by: { $0.1 < $1.1 }), best.1 <= limit { return best.0 }
        let longer = candidates.filter { name.count >= 3 && $0.hasPrefix(name) }
        return longer.count == 1 ? longer[0] : nil
    }

    /// Insertions, deletions, replacements and swaps of neighbours between two texts (optimal string alignment).
    private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        guard a.count <= 64, b.count <= 64 else { return .max }
        var rows = [[Int]](repeating: [Int](repeating: 0, count: b.count + 1), count: a.count + 1)
        for i in 0...a.count { rows[i][0] = i }
        for j in 0...b.count { rows[0][j] = j }
        for i in stride(from: 1, through: a.count, by: 1) {
            for j in stride(from: 1, through: b.count, by: 1) {
                let cost = a[i - 1] == b[j - 1] ? 0 : 1
                rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + cost)
                if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1) }
            }
        }
        return rows[a.count][b.count]
    }
}
