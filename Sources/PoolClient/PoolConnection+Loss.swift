import Glibc

/// What is going on when an answer does not come: it decides whether something may have happened.
enum Exchange {
    /// HELLO: nothing was asked for yet.
    case greeting
    /// Looks only: lost is lost, nothing has happened.
    case question
    /// An operation that does something.
    case change
    case call
}

/// The errors of an answer that does not come. `connection` promises that nothing was called or changed; where poold has the whole of a call
/// or of an operation that changes something, nobody can promise that.
extension PoolConnection {
    private var doesSomething: Bool { exchange == .call || exchange == .change }
    private var mayHaveHappened: Bool { isSent && doesSomething }

    /// What to look at before it is asked for again.
    private var advice: String {
        exchange == .call
            ? "look at `poolctl calls` and poold's log before it is called again"
            : "look at `poolctl status` and `poolctl events` before it is asked for again"
    }

    /// poold closed the connection.
    func closed() -> PoolError {
        guard mayHaveHappened else {
            let when = doesSomething ? " before it had read the request: nothing of it was done" : ""
            return .connection("poold at \(path) closed the connection\(when)")
        }
        let what = exchange == .call ? "the call may have run" : "what was asked for may have been done"
        return PoolError(status: "worker_lost", message: "poold at \(path) closed the connection; \(what): \(advice)")
    }

    /// No answer within `answerLimit`.
    func late() -> PoolError {
        let silence = "poold at \(path) took the connection but did not answer\(Self.within(answerLimit))"
        guard mayHaveHappened else { return .connection("\(silence); it is starting, overloaded or stopped (see its log), or wait longer") }
        let what = exchange == .call ? "the call may still run or have run" : "what was asked for may still be done or be done already"
        return PoolError(status: "timeout", message: "\(silence); \(what): \(advice)")
    }

    /// Nobody read what was sent: of a request that is not whole, nothing is done.
    func unread(_ sent: Int, of all: Int) -> PoolError {
        // Half a frame went: nothing else may follow it.
        shutdown(descriptor, Int32(SHUT_RDWR))
        return .connection(
            "poold at \(path) took no more than \(sent) of \(all) bytes\(Self.within(answerLimit)); nothing was done. It is overloaded or stopped "
                + "(see its log)")
    }

    /// What came is no answer of poold's.
    func strange(_ message: String) -> PoolError {
        mayHaveHappened ? PoolError(status: "internal", message: "\(message); what was asked for may have happened: \(advice)") : .connection(message)
    }
}
