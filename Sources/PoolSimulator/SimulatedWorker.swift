import PoolCore

/// A worker process as PROTOCOL.md, section 7, describes it.
struct SimulatedWorker {
    enum Life { case none, asked, booting, serving, ended }

    struct Inbound {
        var number: UInt64
        var call: CallID
        var deadline: UInt64
        var isPoison: Bool
    }

    struct Reply {
        var number: UInt64
        var kind: ReplyKind
        var ran: UInt64
    }

    var generation: UInt32 = 0
    var life = Life.none
    /// Sent by poold, not begun.
    var inbox: [Inbound] = []
    var started: UInt64 = 0
    var running: UInt64 = 0
    var runningSince: UInt64 = 0
    var revoked: [UInt64] = []
    /// Finished, not written: lost if it dies.
    var buffered: [Reply] = []
    /// Written: poold will read it, also after a death.
    var socket: [Reply] = []
    var isReading = false
    var isDraining = false
    var ignoresTerm = false
    var isStubborn = false
    var isStalled = false
    var isDying = false
    var scribbles = false

    // What the model of poold's promises knows of it.
    var isReadyToPoold = false
    var isRetired = false
    var mayBeKilled = false
    var lastNumber: UInt64 = 0
    var firstUnanswered: UInt64 = 1
    var outstanding: Int { Int(lastNumber + 1 - firstUnanswered) }
}

/// A call as the model knows it.
struct SimulatedCall {
    enum Place { case none, waiting, atWorker }
    var id = CallID.none
    var place = Place.none
    var deadline: UInt64 = 0
    var worker = WorkerID(slot: 0, generation: 0)
    var number: UInt64 = 0
    var idempotent = false
    var isPoison = false
    var isAbandoned = false
    var isCancelled = false
    /// Times it really began.
    var begun = 0
    var session: UInt64 = 0
    var identity: UInt16 = 0
    var bytes: UInt32 = 0
    /// Of a poisonous body; 0: harmless.
    var hash: UInt64 = 0
}
