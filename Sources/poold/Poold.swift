import ArgumentParser
import Glibc
import Logging
import PoolConfig
import PoolRuntime
import PoolTelemetry

@main
struct Poold: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "poold",
        abstract: "A pool of Python workers behind a Unix socket.",
        discussion: """
            Without a subcommand it serves what $POOLD_CONFIG or /etc/poold/poold.yaml
            says; where there is neither, the example pools on a private socket, and
            says how to call them.

            EXAMPLES
              poold
              poold serve --config /etc/poold/poold.yaml
              poold serve --socket /run/poold/poold.sock --pool text=/srv/text.py
            """,
        version: PooldVersion.text,
        subcommands: [Serve.self],
        defaultSubcommand: Serve.self)

    static func main() {
        // The parser would only call it an unexpected argument.
        if let first = CommandLine.arguments.dropFirst().first, !first.hasPrefix("-"), first != "serve", first != "help" {
            var text = "poold: there is no command \(first); `poold serve` serves pools, see `poold --help`\n"
            text.withUTF8 { _ = write(2, $0.baseAddress, $0.count) }
            Poold.exit(withError: ExitCode.validationFailure)
        }
        main(nil)
    }
}

struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve pools until SIGTERM (a second one kills the workers at once).",
        discussion: """
            EXAMPLES
              poold serve --config /etc/poold/poold.yaml
              poold serve --pool text=/srv/text.py --pool vectors=company.vectors

            EXIT CODES
              0 stopped   64 wrong usage   69 cannot start   78 the configuration is refused
            """)

    @Option(
        help: ArgumentHelp(
            "Configuration file; options hold over it. Default, where no --pool is given: $POOLD_CONFIG, then /etc/poold/poold.yaml.", valueName: "file"))
    var config: String?

    @Option(
        name: .customLong("pool"),
        help: ArgumentHelp(
            "A pool: NAME=MODULE, a dotted Python module or a path to a .py file. Repeat for more. Default: the example pools.", valueName: "name=module"))
    var pools: [String] = []

    @OptionGroup(title: "Over the configuration file") var options: ServeOptions

    func run() throws {
        // Absolute, so that the places in messages stay true wherever they are read.
        let file = config ?? (pools.isEmpty ? ConfigurationSource.usualFile() : nil)
        let source = ConfigurationSource(file: file.map(Paths.absolute), overrides: options.overrides, pools: try pools.map(Self.parse))
        let loaded: LoadedConfiguration
        switch source.load() {
        case .loaded(let one): loaded = one
        case .refused(let problems): throw Self.refuse(problems)
        }
        LogControl.apply(loaded.configuration.log)
        let log = LogControl.shared.logger
        do {
            if loaded.configuration.socketPath == Paths.runtimeFolder() + "/poold.sock" { try Self.makeRuntimeFolder() }
            if source.isEmbedded { Self.greet(loaded.configuration.socketPath) }
            try Daemon.run(loaded, source: source, log: log, applyLog: LogControl.apply)
        } catch {
            log.critical("cannot start", metadata: ["reason": "\(error)"])
            throw ExitCode(69)
        }
    }

    /// EX_USAGE where options alone are wrong, EX_CONFIG otherwise.
    private static func refuse(_ problems: [ConfigurationProblem]) -> ExitCode {
        var text = problems.map { "\($0)\n" }.joined()
        text.withUTF8 { _ = write(2, $0.baseAddress, $0.count) }
        return problems.allSatisfy(\.place.isOption) ? ExitCode(64) : ExitCode(78)
    }

    private static func greet(_ path: String) {
        // As it was called itself: from a source tree neither program is on PATH.
        let own = CommandLine.arguments[0]
        let beside = own.lastIndex(of: "/").map { String(own[...$0]) + "poolctl" } ?? "poolctl"
        let poolctl = access(beside, X_OK) == 0 ? beside : "poolctl"
        print(
            """
            poold \(PooldVersion.text) serves the example pools on \(path). Try, in another shell:

              export POOLD_SOCKET=\(path)
              \(poolctl) call text.summarize '{"text": "One. Two is longer.", "sentences": 1}'
              \(poolctl) call vectors.nearest '{"query": [1, 0], "vectors": [[0, 1], [2, 0.1]], "count": 1}'
              \(poolctl) status

            Ctrl-C ends it.
            """)
        fflush(nil)
    }

    /// NAME=MODULE; what they may be is the configuration's to say.
    private static func parse(_ text: String) throws -> PoolOption {
        guard let equals = text.firstIndex(of: "="), equals != text.startIndex else {
            throw ValidationError("--pool \(text) must look like NAME=MODULE, for example text=/srv/text.py")
        }
        return PoolOption(name: String(text[..<equals]), module: String(text[text.index(after: equals)...]))
    }

    /// The folder of the default socket, private to this user.
    private static func makeRuntimeFolder() throws {
        let folder = Paths.runtimeFolder()
        var status = stat()
        if mkdir(folder, 0o700) != 0 && errno != EEXIST {
            throw FolderFault(description: "cannot make \(folder): \(String(cString: strerror(errno))); name a socket with --socket")
        }
        // A folder in /tmp that another user made would let them answer in our place.
        guard lstat(folder, &status) == 0, status.st_uid == getuid(), status.st_mode & S_IFMT == S_IFDIR else {
            throw FolderFault(description: "\(folder) belongs to another user; name a socket with --socket")
        }
    }
}

/// The folder of the default socket cannot be had.
private struct FolderFault: Error, CustomStringConvertible {
    var description: String
}
