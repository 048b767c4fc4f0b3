import PoolCore

/// What a descriptor in the loop is.
enum Role: UInt8, BitwiseCopyable {
    case free, client, control, worker
}

/// Whether whole frames wait in a connection's input because it holds too much.
///
/// - no: → waiting
/// - waiting: its calls or replies have to drain. → due
/// - due: has room again and is taken up at the end of the turn. → no, waiting
enum Stall: UInt8, BitwiseCopyable {
    case no, waiting, due
}

/// One stream socket with its buffers. Lives in a slab; an idle one holds no buffer.
struct Connection: BitwiseCopyable {
    var descriptor: Int32
    /// How many connections lived in this place: 24 bits go into the epoll token.
    var generation: UInt32
    var role: Role
    var hasSpoken = false
    /// HELLO was answered: METHODS may be sent, and bodies may be as large as WELCOME said.
    var greeted = false
    /// To be closed once its output is written.
    var closing = false
    var wantsOutput = false
    var paused = false
    var isDirty: Bool
    var stall = Stall.no
    /// What epoll watches now.
    var interest: UInt32
    var identity: UInt16 = 0
    /// Of `AccessTable`: what its peer may do.
    var access = AccessTable.ownClass
    /// The pool that it was last found to be allowed to call; `.max`: none.
    var allowedPool = UInt16.max
    /// Of a worker's socket.
    var pool: UInt16 = 0
    var slot: UInt16 = 0

    /// The beginning of a frame whose rest has not come, or whole frames while it is stalled.
    var input = Block()
    var inputCount = 0
    /// Bytes to be written: `output[outputStart..<outputEnd]`, then the segments.
    var output = Block()
    var outputStart = 0
    var outputEnd = 0
    var firstSegment = SegmentTable.none
    var lastSegment = SegmentTable.none
    var segmentBytes = 0

    /// Calls in flight: a list through `CallContext`, as `CallReference`.
    var firstCall = CallReference.none
    var callCount: Int32 = 0
    /// Bytes of their bodies.
    var heldBytes = 0

    init(descriptor: Int32, generation: UInt32, role: Role, isDirty: Bool, interest: UInt32) {
        self.descriptor = descriptor
        self.generation = generation
        self.role = role
        self.isDirty = isDirty
        self.interest = interest
    }

    /// Bytes that its peer has not taken yet.
    @inline(__always) var unwritten: Int { outputEnd - outputStart + segmentBytes }
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
    /// In place of a connection: poold's own call of a warming job, which `clientID` names.
    static let warming = -2
    var connection: Int32
    /// The id under which the client asked.
    var clientID: UInt64
    var session: UInt64
    /// At least 32 bytes of room, then the body as the worker gets it. Shared with sockets' queues if the body is large.
    var block: Block
    var bodyOffset: Int32
    var bodyLength: Int
    var method: UInt16
    var flags: UInt8
    /// The machine's id, whole.
    var call: CallID
    var previous: CallReference
    var next: CallReference

    /// Above this many bytes a body is passed on without copying.
    static let largeBody = 16_384
    @inline(__always) var isLarge: Bool { bodyLength > Self.largeBody }
    @inline(__always) var body: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: block.pointer.map { UnsafeRawPointer($0 + Int(bodyOffset)) }, count: bodyLength)
    }
}
