import ArgumentParser
import CPoold
import Foundation

/// Deliberate faults of this program itself, for the proof that each is noticed (Tests/EndToEnd/test_chaos.py).
enum Sabotage: String, CaseIterable, ExpressibleByArgument {
    /// One reply is thrown away.
    case lostReply = "lost-reply"
    /// One reply is compared with other bytes than were sent.
    case otherBody = "other-body"
    /// One line of the journal is there twice.
    case secondRun = "second-run"
    /// A connection to the control socket stays open.
    case descriptor
    /// A process of the run stays.
    case process
    /// One call is counted that was never made.
    case counter
    /// Calls are counted as refused without a reason.
    case overload
}

extension ChaosRun {
    /// Before what is left is counted.
    func sabotageRest() throws {
        if sabotage.contains(.descriptor) { keptDescriptor = cpoold_connect(server.configuration.control, true) }
        if sabotage.contains(.process) {
            let process = Process()
            process.executableURL = URL(filePath: "/bin/sleep")
            process.arguments = ["300"]
            process.environment = [ProcessCensus.variable: server.marker]
            try process.run()
        }
        if sabotage.contains(.counter) { load.tally.pools[ChaosPool.echo.rawValue].issued += 1 }
        if sabotage.contains(.overload) {
            let echo = load.tally.pools[ChaosPool.echo.rawValue]
            load.tally.pools[ChaosPool.echo.rawValue].overloadedInPeace += max(PeaceBounds.least, echo.madeInPeace / 1_000) + 1
        }
        if sabotage.contains(.secondRun) { load.journal.repeatOne() }
    }
}
