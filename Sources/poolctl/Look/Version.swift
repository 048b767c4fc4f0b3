import ArgumentParser
import PoolProtocol

struct VersionCommand: Connecting {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Show the running poold's version and files, and poolctl's.",
        usage: "poolctl version [options]",
        discussion: """
            EXAMPLE
              poolctl version
            """)
    @OptionGroup var common: Common

    func run() throws {
        let version: Poold_V1_Version = try common.ask(.version)
        if common.json { return Output.line(try version.json()) }
        Output.line("poold \(version.version), protocol \(version.protocol), pid \(version.pid)")
        if !version.socket.isEmpty { Output.line("socket \(version.socket), control socket \(version.controlSocket)") }
        if !version.configurationFile.isEmpty { Output.line("configuration \(version.configurationFile)") }
        Output.line("poolctl \(Poolctl.configuration.version)")
        if version.version != Poolctl.configuration.version { complain("The versions differ: restart poold to run the installed one.") }
    }
}
