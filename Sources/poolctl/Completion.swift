import ArgumentParser

struct Completion: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completion", abstract: "Print the completion script of a shell.",
        discussion: """
            Commands and options, and names of pools and methods of the running poold.

            EXAMPLES
              poolctl completion bash > /etc/bash_completion.d/poolctl
              poolctl completion zsh > ~/.zsh/completions/_poolctl
              poolctl completion fish > ~/.config/fish/completions/poolctl.fish
            """)
    enum Shell: String, ExpressibleByArgument, CaseIterable { case bash, zsh, fish }
    @Argument(help: "bash, zsh or fish.") var shell: Shell

    func run() {
        switch shell {
        case .bash: Output.line(Poolctl.completionScript(for: .bash))
        case .zsh: Output.line(Poolctl.completionScript(for: .zsh))
        case .fish: Output.line(Poolctl.completionScript(for: .fish))
        }
    }
}
