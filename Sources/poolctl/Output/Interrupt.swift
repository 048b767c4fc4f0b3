import Glibc
import Synchronization

/// SIGINT and SIGTERM asked a watching command to end.
enum Interrupt {
    private static let arrived = Atomic<Bool>(false)
    static var hasArrived: Bool { arrived.load(ordering: .relaxed) }

    /// From here on they are noted instead of ending the program; a wait ends early.
    static func watch() {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in Interrupt.arrived.store(true, ordering: .relaxed) }
        sigaction(SIGINT, &action, nil)
        sigaction(SIGTERM, &action, nil)
    }

    /// Sleeps, or returns at once when the signal has come. True: go on.
    static func sleep(seconds: Double) -> Bool {
        // In slices: a signal that comes just before the system call would else wait for all of it.
        var left = seconds
        while left > 0 && !hasArrived {
            _ = poll(nil, 0, Int32(min(left, 0.2) * 1000))
            left -= 0.2
        }
        return !hasArrived
    }
}
