import PoolCore

/// A worker process as PROTOCOL.md, section 7, describes it, and what the shadow model knows of it.
struct SimulatedWorker {
    enum Life { case none, asked, booting, serving }

    struct Inbound {
        var number: UInt64
        var serial: Int
        var deadline: UInt64
    }

    struct Reply {
        var number: UInt64
        var kind: ReplyKind
        var ran: UInt64
    }

    /// A call that was sent and has no reply yet.
    struct Held {
        var serial: Int
        /// Ended or taken back: poold waits for its reply only to count it.
        var isOver = false
        /// A scribbled page made poold believe that it began: what was decided before that, in the same event and below this place among
        /// its effects, does not take it back.
        var believedDuring: UInt64 = 0
        var believedAt = 0
        /// When it ended although it ran; 0: it did not.
        var overranAt: UInt64 = 0
        /// The shortest `hangAfter` since then.
        var patience: UInt64 = 0
    }

    // The process.
    var generation: UInt32 = 0
    var life = Life.none
    /// Sent by poold, not begun.
    var inbox: [Inbound] = []
    /// The page: words 1 and 2, and the revocations.
    var started: UInt64 = 0
    var running: UInt64 = 0
    var revoked: [UInt64] = []
    var runningSince: UInt64 = 0
    /// `started` is stored, deadline and revocation are not yet checked.
    var checking: Inbound?
    /// Finished, not written: lost if it dies.
    var buffered: [Reply] = []
    /// Written: poold will read it, also after a death.
    var socket: [Reply] = []
    var isReading = false
    var isDraining = false
    var ignoresTerm = false
    var isStubborn = false
    var isStalled = false
    /// What reached it while it was stopped: it takes effect when the process goes on, as signals do.
    var pendingTerminate = false
    var pendingInterrupt: UInt64 = 0
    var pendingPing = false
    var isDying = false
    var scribbles = false
    /// Its socket is gone from poold's loop.
    var isUnheard = false

    // The model.
    var phase = WorkerPhase.empty
    /// Why it is in this phase.
    var cause = WorkerCause.wanted
    var since: UInt64 = 0
    /// How long it may be in this phase, under the policy that it was entered with.
    var phaseLimit = UInt64.max
    /// Of `firstUnanswered...lastNumber`, in their order.
    var held: [Held] = []
    var lastNumber: UInt64 = 0
    var firstUnanswered: UInt64 = 1
    /// It broke the protocol: what it says is no longer heard.
    var isDeaf = false
    /// The event during which its page was found scribbled, and the first effect that was decided afterwards.
    var scribbledDuring: UInt64 = 0
    var scribbledAt = 0
    /// It gave poold a reason to kill it.
    var isFaulty = false
    var operatorKilled = false
    /// Something happened that may make poold let it go when it is idle.
    var mayLeave = false
    var unansweredPings = 0

    var outstanding: Int { held.count }

    func heldIndex(_ number: UInt64) -> Int? {
        number >= firstUnanswered && number - firstUnanswered < UInt64(held.count) ? Int(number - firstUnanswered) : nil
    }
}
