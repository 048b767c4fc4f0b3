import PoolClient
import PoolProtocol

/// `poolctl status` as a monitor runs it, every few seconds beside callers who want the processor: with nothing but `--all`, `--json`,
/// `--socket PATH` and `--control PATH`. The parser reflects on every command and option before it reads a word, which is half of what a
/// status costs; whatever is not plain is left to it.
struct PlainStatus {
    private var all = false
    private(set) var common = Common()

    /// nil: for the parser.
    init?(_ arguments: [String]) {
        guard arguments.first == "status" else { return nil }
        (common.socket, common.control, common.waitFor, common.json, common.color) = (nil, nil, nil, false, .auto)
        var rest = arguments.dropFirst()
        while let word = rest.popFirst() {
            switch word {
            case "--all": all = true
            case "--json": common.json = true
            case "--socket" where common.socket == nil:
                guard let path = Self.path(&rest) else { return nil }
                common.socket = path
            case "--control" where common.control == nil:
                guard let path = Self.path(&rest) else { return nil }
                common.control = path
            default: return nil
            }
        }
    }

    private static func path(_ rest: inout ArraySlice<String>) -> String? {
        guard let path = rest.popFirst(), !path.hasPrefix("-") else { return nil }
        return path
    }

    func run() throws { Output.write(try StatusCommand.shown(try common.status(), all: all, common, common.style)) }
}
