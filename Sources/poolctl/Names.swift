import ArgumentParser
import PoolClient
import PoolProtocol

/// Names that only poold knows, for the shell's completion: quickly, or silently not at all.
enum Names {
    static let limit = Duration.milliseconds(500)

    static let pools = CompletionKind.custom { words, _, prefix in
        (status(words)?.pools.map(\.name) ?? []).filter { $0.hasPrefix(prefix) }
    }

    static let methods = CompletionKind.custom { words, _, prefix in
        let pools = status(words)?.pools ?? []
        return pools.flatMap { pool in pool.methods.map { "\(pool.name).\($0.name)" } }.filter { $0.hasPrefix(prefix) }
    }

    private static func status(_ words: [String]) -> Poold_V1_Status? {
        var common = Common()
        common.socket = value("--socket", words)
        common.control = value("--control", words)
        common.waitFor = Span(limit)
        common.json = false
        common.color = .never
        return try? common.status()
    }

    private static func value(_ option: String, _ words: [String]) -> String? {
        guard let index = words.firstIndex(of: option), index + 1 < words.count else { return nil }
        return words[index + 1]
    }
}
