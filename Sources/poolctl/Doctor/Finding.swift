/// One thing that doctor looked at.
struct Finding {
    enum Level: String { case ok, warn, fail }
    /// kernel, limits, memory, processes, systemd, sockets, python, configuration, pool NAME
    var area: String
    var check: String
    var level: Level
    /// What is there.
    var found: String
    /// What it costs if nothing is done; empty when all is well.
    var costs = ""
    /// What to do; empty when all is well.
    var advice = ""

    static func ok(_ area: String, _ check: String, _ found: String) -> Finding { Finding(area: area, check: check, level: .ok, found: found) }
    static func warn(_ area: String, _ check: String, _ found: String, costs: String, advice: String) -> Finding {
        Finding(area: area, check: check, level: .warn, found: found, costs: costs, advice: advice)
    }
    static func fail(_ area: String, _ check: String, _ found: String, costs: String, advice: String) -> Finding {
        Finding(area: area, check: check, level: .fail, found: found, costs: costs, advice: advice)
    }

    var json: String {
        "{\"area\": \(quoted(area)), \"check\": \(quoted(check)), \"level\": \(quoted(level.rawValue)), \"found\": \(quoted(found)), "
            + "\"costs\": \(quoted(costs)), \"advice\": \(quoted(advice))}"
    }

    func lines(_ style: Style) -> [String] {
        let width = min(style.width ?? 80, 120)
        let wrapped = Format.wrap("\(check): \(found)", width, indent: 6)
        var lines = [style.paint(Format.pad(level.rawValue, 5), Tone.of(level.rawValue)) + " " + (wrapped.first ?? "").dropFirst(6)]
        lines += wrapped.dropFirst()
        if !costs.isEmpty { lines += Format.wrap("costs: \(costs)", width, indent: 6) }
        if !advice.isEmpty { lines += Format.wrap("do: \(advice)", width, indent: 6) }
        return lines
    }
}
