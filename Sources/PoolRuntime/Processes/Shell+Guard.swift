import CPoold
import Glibc
import Logging

/// The process that ends every worker's group if poold is gone without a word.
extension Shell {
    /// One that cannot live is not started in a circle.
    private static let guardInterval: UInt64 = 1_000_000_000

    /// Somebody killed it.
    mutating func guardExited() {
        var status: Int32 = 0
        _ = cpoold_reap(guardProcess, &status)
        close(guardPipe)
        guardPipe = -1
        guardProcess = 0
        guardDeadline = guardStarted + Self.guardInterval
        if guardDeadline <= now { return startGuard() }
        journal.error("the guard has died again and is replaced in a moment: until then, a kill -9 of poold leaves its workers' children behind")
    }

    /// A new one learns of every group.
    mutating func startGuard() {
        guardDeadline = .max
        guardStarted = now
        guardPipe = cpoold_guard_start(&guardProcess, true)
        guard guardPipe >= 0 else {
            let error = errno
            guardProcess = 0
            guardDeadline = now + 10 * Self.guardInterval
            return journal.error(
                "no guard can be started: a kill -9 of poold leaves its workers' children behind",
                metadata: ["error": "\(text(of: error))", "retry_milliseconds": "\(10 * Self.guardInterval / 1_000_000)"])
        }
        for pid in children.keys { _ = cpoold_guard_tell(guardPipe, pid, true) }
        journal.warning("the guard had died and was replaced", metadata: ["pid": "\(guardProcess)"])
    }
}
