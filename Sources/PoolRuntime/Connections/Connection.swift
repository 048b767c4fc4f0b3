import PoolCore

/// What a descriptor in the loop is.
enum Role: UInt8, BitwiseCopyable {
    case free, client, control, worker
}

/// One stream socket with its buffers. Lives in a slab; an idle one holds no buffer.
struct Connection: BitwiseCopyable {
    var descriptor: Int32
    /// How many connections lived in this place: 24 bits go into the epoll token.
    var generation: UInt32
    var role: Role
    var hasSpoken: Bool
    /// HELLO was answered: METHODS may be sent.
    var greeted: Bool
    /// To be closed once its output is written.
    var closing: Bool
    var wantsOutput: Bool
    var paused: Bool
    var isDirty: Bool
    var identity: UInt16
    /// Of a worker's socket.
    var pool: UInt16
    var slot: UInt16

    /// The beginning of a frame whose rest has not come.
    var input: Block
    var inputCount: Int
    /// Bytes to be written: `output[outputStart..<outputEnd]`.
    var output: Block
    var outputStart: Int
    var outputEnd: Int

    /// Calls in flight: a list through `CallContext`, as `CallReference`.
    var firstCall: CallReference
    var callCount: Int32
    /// Bytes of their bodies.
    var heldBytes: Int
}

/// A call of some pool: where its context is.
struct CallReference: BitwiseCopyable, Equatable {
    var packed: UInt64
    static let none = CallReference(packed: .max)
    init(packed: UInt64) { self.packed = packed }
    init(pool: Int, index: UInt32) { packed = UInt64(pool) << 32 | UInt64(index) }
    var pool: Int { Int(packed >> 32) }
    var index: Int { Int(packed & 0xFFFF_FFFF) }
}

/// What the shell knows of a call that the machine does not: whose it is and its bytes.
struct CallContext: BitwiseCopyable {
    var connection: Int32
    var connectionGeneration: UInt32
    /// The id under which the client asked.
    var clientID: UInt64
    var session: UInt64
    /// 32 bytes of room for a header, then the body as the worker gets it.
    var block: Block
    var bodyLength: Int
    var method: UInt16
    var flags: UInt8
    /// The machine's id, whole.
    var call: CallID
    var previous: CallReference
    var next: CallReference
}
