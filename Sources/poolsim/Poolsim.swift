import ArgumentParser

@main
struct Poolsim: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "poolsim",
        abstract: "Drives poold's state machine through seeded worlds of faults, in virtual time, against a shadow model.",
        discussion: """
            One seed is one world: policy, load, faults and an operator. Every eighth runs twice, once with its state encoded \
            and decoded on its way, and both must agree in every effect.

            EXAMPLES
              poolsim run --seeds 10000
              poolsim run --seeds 1000000 --from 1000000 --jobs 2
              poolsim replay 4711 --trace
              poolsim shrink 4711
            """,
        subcommands: [Run.self, Replay.self, Shrink.self])
}
