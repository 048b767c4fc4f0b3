import ArgumentParser
import PoolClient

/// `--watch [seconds]`: shows again and again until SIGINT.
struct Watch: ParsableArguments {
    @Option(
        name: .customLong("watch"), defaultAsFlag: 2,
        help: ArgumentHelp("Show again every so many seconds until Ctrl-C.", valueName: "seconds"))
    var interval: Double?

    func validate() throws {
        if let interval, !(0.1...3600).contains(interval) { throw ValidationError("--watch \(interval) is outside of 0.1…3600 seconds") }
    }

    /// Shows once, or repeatedly: on a terminal in place, in a pipe as blocks with an empty line between them (JSON: a value a line).
    func show(_ common: Common, _ render: (Style) throws -> String) throws {
        guard let interval else { return Output.write(try render(common.style)) }
        Interrupt.watch()
        var isFirst = true
        repeat {
            let style = common.style
            var text: String
            do { text = try render(style) } catch let error as PoolError {
                if Interrupt.hasArrived { return }
                // A restarting poold comes back; in a pipe nobody is there to see that.
                guard style.isTerminal && !common.json && !isFirst && error.status == "connection" else { throw error }
                text = error.message + "\n"
            }
            if common.json {
                Output.write(text)
            } else if style.isTerminal {
                Output.write("\u{1B}[H\u{1B}[2J" + cut(text, style))
            } else {
                Output.write((isFirst ? "" : "\n") + text)
            }
            isFirst = false
        } while Interrupt.sleep(seconds: interval)
    }

    /// What fits on the screen; more would scroll the beginning away.
    private func cut(_ text: String, _ style: Style) -> String {
        guard let height = style.height, height > 2 else { return text }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
        guard lines.count >= height else { return text }
        return lines.prefix(height - 2).joined(separator: "\n") + "\n… \(Format.count(lines.count - height + 2, "more line"))\n"
    }
}
