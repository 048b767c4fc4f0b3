import PoolCore

/// A call as the shadow model knows it.
struct SimulatedCall {
    enum Place { case ended, waiting, atWorker }
    var id = CallID.none
    var place = Place.waiting
    /// Where it stands among the living.
    var position = 0
    var identity: UInt16 = 0
    var method: UInt16 = 0
    var priority = Priority.normal
    var session: UInt64 = 0
    var bytes: UInt32 = 0
    /// Of a poisonous body; 0: harmless.
    var poison: UInt64 = 0
    var idempotent = false
    var deadline: UInt64 = 0
    /// The only worker that may have it; `none`: any.
    var target = WorkerID.none

    /// Its last worker, and its number there.
    var worker = WorkerID(slot: 0, generation: 0)
    var number: UInt64 = 0
    var sends = 0
    /// Workers that ended while it counted as begun there.
    var losses = 0
    /// Losses after which it was to run again.
    var lossesForgiven = 0
    /// Times that the application's code was entered.
    var runs = 0
    /// A scribbling worker made poold believe that it began.
    var countsAsBegun = false
    var isAbandoned = false
    var isCancelled = false
}
