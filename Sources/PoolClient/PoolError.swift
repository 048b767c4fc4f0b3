/// Why a call or an operation brought no result.
public struct PoolError: Error, Sendable, CustomStringConvertible {
    /// The status's name in PROTOCOL.md, section 6; `connection`: poold could not be reached or went away, and nothing was called or changed;
    /// `timeout`: no answer in time. With `worker_lost` and `timeout` what was asked for may happen all the same.
    public var status: String
    /// What happened, where and what to do, in one line.
    public var message: String
    /// The Python traceback of an `application_error`; often empty.
    public var detail: String
    /// Nanoseconds after which a retry is worth while; 0: not said.
    public var retryAfterNanoseconds: UInt64

    public var description: String { "\(status): \(message)" }

    package init(status: String, message: String, detail: String = "", retryAfterNanoseconds: UInt64 = 0) {
        self.status = status
        self.message = message
        self.detail = detail
        self.retryAfterNanoseconds = retryAfterNanoseconds
    }

    static func connection(_ message: String) -> PoolError { PoolError(status: "connection", message: message) }
}
