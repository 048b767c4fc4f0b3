/// What a frame is (PROTOCOL.md, section 2).
package enum FrameType: UInt8, CaseIterable, BitwiseCopyable, Sendable {
    case hello = 1
    case welcome = 2
    case methods = 3
    case call = 4
    case result = 5
    case chunk = 6
    case error = 7
    case cancel = 8
    case window = 9
    case release = 10
    case ping = 11
    case pong = 12
    case drain = 13
    case control = 14

    /// The flags that this type knows.
    @inlinable package var allowedFlags: UInt8 {
        switch self {
        case .call: return 0xDF
        case .result: return FrameFlags.end | FrameFlags.meta | FrameFlags.memfd
        case .chunk: return FrameFlags.end | FrameFlags.memfd
        case .error: return FrameFlags.end
        case .hello, .welcome, .methods, .cancel, .window, .release, .ping, .pong, .drain, .control: return 0
        }
    }
}

/// Flag bits (PROTOCOL.md, section 3).
package enum FrameFlags {
    package static let end: UInt8 = 0x01
    package static let meta: UInt8 = 0x02
    package static let memfd: UInt8 = 0x04
    package static let named: UInt8 = 0x08
    package static let idempotent: UInt8 = 0x10
    package static let reserved: UInt8 = 0x20
    package static let priorityShift: UInt8 = 6
}

/// Status of an ERROR frame (PROTOCOL.md, section 6).
package enum Status: UInt16, CaseIterable, BitwiseCopyable, Sendable {
    case applicationError = 1
    case timeoutWaiting = 2
    case timeoutRunning = 3
    case cancelled = 4
    case overloaded = 5
    case workerLost = 6
    case draining = 7
    case noSuchPool = 8
    case noSuchMethod = 9
    case methodGone = 10
    case badArguments = 11
    case badFrame = 12
    case frameTooLarge = 13
    case unsupportedVersion = 14
    case permissionDenied = 15
    case quotaExceeded = 16
    case quarantined = 17
    case poolUnavailable = 18
    case sessionLost = 19
    case resultTooLarge = 20
    case resultUnencodable = 21
    case setupFailed = 22
    case `internal` = 23

    /// The name that PROTOCOL.md gives it.
    package var name: String {
        switch self {
        case .applicationError: return "application_error"
        case .timeoutWaiting: return "timeout_waiting"
        case .timeoutRunning: return "timeout_running"
        case .cancelled: return "cancelled"
        case .overloaded: return "overloaded"
        case .workerLost: return "worker_lost"
        case .draining: return "draining"
        case .noSuchPool: return "no_such_pool"
        case .noSuchMethod: return "no_such_method"
        case .methodGone: return "method_gone"
        case .badArguments: return "bad_arguments"
        case .badFrame: return "bad_frame"
        case .frameTooLarge: return "frame_too_large"
        case .unsupportedVersion: return "unsupported_version"
        case .permissionDenied: return "permission_denied"
        case .quotaExceeded: return "quota_exceeded"
        case .quarantined: return "quarantined"
        case .poolUnavailable: return "pool_unavailable"
        case .sessionLost: return "session_lost"
        case .resultTooLarge: return "result_too_large"
        case .resultUnencodable: return "result_unencodable"
        case .setupFailed: return "setup_failed"
        case .internal: return "internal"
        }
    }
}

/// How a method's bodies are encoded.
package enum Codec: UInt8, CaseIterable, BitwiseCopyable, Sendable {
    case bytes = 0
    case json = 1
    case messagePack = 2
}
