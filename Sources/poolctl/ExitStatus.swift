import ArgumentParser
import PoolClient

/// What the shell is told. `poolctl --help` and OPERATIONS.md list them.
enum ExitStatus: Int32 {
    case done = 0
    /// The method raised, or what was asked for did not succeed.
    case failed = 1
    /// Nothing was called or changed.
    case noAnswer = 3
    case refused = 4
    /// Of a call or a wait, or poold did not answer in time: what was asked for may happen all the same.
    case timeout = 5
    /// Or poold itself, after it had the request: it may have been done.
    case workerLost = 6
    case cancelled = 7
    case notFound = 8
    case other = 9
    case noPermission = 10
    case wrongUsage = 64

    static func of(_ error: PoolError) -> ExitStatus {
        switch error.status {
        case "application_error", "bad_arguments", "result_unencodable", "result_too_large", "failed": return .failed
        case "connection": return .noAnswer
        case "overloaded", "draining", "quota_exceeded", "quarantined", "pool_unavailable": return .refused
        case "timeout_waiting", "timeout_running", "timeout": return .timeout
        case "worker_lost", "session_lost": return .workerLost
        case "cancelled": return .cancelled
        case "no_such_pool", "no_such_method", "method_gone", "not_found": return .notFound
        case "permission_denied": return .noPermission
        case "wrong_usage": return .wrongUsage
        default: return .other
        }
    }

    static let text = """
        EXIT CODES
          0 done                  7 cancelled
          1 the method raised, or the operation failed
          3 no poold answers; nothing was called or changed
          4 refused (overloaded, draining, quota, quarantined, unavailable)
          5 timeout: it may happen all the same
          6 the worker, or poold, was lost; it may have happened
          8 no such pool, method, worker or call
          9 other                10 no permission            64 wrong usage
        """
}
