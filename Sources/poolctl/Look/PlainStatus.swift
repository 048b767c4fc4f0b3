/// `poolctl status` as a monitor runs it, every few seconds beside callers who want the processor: with nothing but `--all`, `--json`,
/// `--socket PATH` and `--control PATH`. The parser reflects on every command and option before it reads a word, which is half of what a
/// status costs; whatever is not plain is left to it.
enum PlainStatus {
    /// nil: for the parser.
    static func read(_ arguments: [String]) -> StatusCommand? {
        guard arguments.first == "status" else { return nil }
        var all = false
        var json = false
        var socket: String?
        var control: String?
        var rest = arguments.dropFirst()
        while let word = rest.popFirst() {
            switch word {
            case "--all": all = true
            case "--json": json = true
            case "--socket" where socket == nil, "--control" where control == nil:
                guard let path = rest.popFirst(), !path.hasPrefix("-") else { return nil }
                if word == "--socket" { socket = path } else { control = path }
            default: return nil
            }
        }

        var filter = PoolFilter()
        filter.pool = nil
        var watch = Watch()
        watch.interval = nil
        var common = Common()
        (common.socket, common.control, common.json) = (socket, control, json)
        (common.waitFor, common.color) = (nil, .auto)
        var command = StatusCommand()
        (command.filter, command.all, command.watch, command.common) = (filter, all, watch, common)
        return command
    }
}
