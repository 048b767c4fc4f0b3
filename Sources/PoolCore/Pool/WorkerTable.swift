/// One slot of the pool. What is (`phase`) stands apart from what is wanted of it (`leaving`, `replaceCause`).
///
/// Phases and their ways out:
/// - empty: → spawning
/// - spawning: a process was asked for. → starting, empty (spawn failed)
/// - starting: the process imports and sets up. → ready, terminating, killing, empty
/// - ready: serves. Busy while `outstanding > 0`. → draining, terminating, killing, empty
/// - draining: was told to end after what it holds (nothing). → terminating, empty
/// - terminating: SIGTERM was sent. → killing, empty
/// - killing: SIGKILL was sent. → empty
struct WorkerRecord: BitwiseCopyable {
    static let noLink = UInt16.max
    var generation: UInt32 = 0
    var phase = WorkerPhase.empty
    var cause = WorkerCause.wanted
    /// It gets no more calls and ends when it holds none.
    var leaving = false
    /// It serves until a replacement is ready.
    var replacing = false
    /// It shall be replaced when its turn comes.
    var replaceWanted = false
    var replaceCause = WorkerCause.wanted
    /// Its end was asked for by poold or an operator: no failure of the pool.
    var endWanted = false
    /// Its socket is closed or broken: replies can no longer come.
    var deaf = false
    var pinged = false
    var healthFailures: UInt8 = 0

    /// The oldest call number without a reply, and the number of the next call.
    var first: UInt64 = 1
    var next: UInt64 = 1
    /// A call up to this number outran its budget and has not returned; 0: none.
    var overrun: UInt64 = 0
    /// Since when the oldest call may be running.
    var mark = Instant.zero
    var work: Nanoseconds = 0
    var bound: Nanoseconds = 0

    var calls: UInt64 = 0
    /// Bits of the methods that it has run.
    var called: UInt64 = 0
    var since = Instant.zero
    var readyAt = Instant.zero
    var ageLimit = Instant.never
    var callsLimit: UInt64 = .max
    var privateBytes: UInt64 = 0

    /// Idle workers, last used first.
    var idlePrevious = WorkerRecord.noLink
    var idleNext = WorkerRecord.noLink
    var isIdle = false

    /// Calls that wait for this worker alone.
    var pinnedHead = CallRecord.noLink
    var pinnedTail = CallRecord.noLink
    var pinnedCount: UInt32 = 0

    var outstanding: Int { Int(next - first) }

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&generation)
        coder.code(&phase)
        coder.code(&cause)
        coder.code(&leaving)
        coder.code(&replacing)
        coder.code(&replaceWanted)
        coder.code(&replaceCause)
        coder.code(&endWanted)
        coder.code(&deaf)
        coder.code(&pinged)
        coder.code(&healthFailures)
        coder.code(&first)
        coder.code(&next)
        coder.code(&overrun)
        coder.code(&mark)
        coder.code(&work)
        coder.code(&bound)
        coder.code(&calls)
        coder.code(&called)
        coder.code(&since)
        coder.code(&readyAt)
        coder.code(&ageLimit)
        coder.code(&callsLimit)
        coder.code(&privateBytes)
        coder.code(&idlePrevious)
        coder.code(&idleNext)
        coder.code(&isIdle)
        coder.code(&pinnedHead)
        coder.code(&pinnedTail)
        coder.code(&pinnedCount)
    }
}

/// What a worker was sent and has not answered, by call number.
struct SentCall: BitwiseCopyable {
    var call = CallID.none
    var cost: Nanoseconds = 0
    var bound: Nanoseconds = 0
    var method: UInt16 = 0

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&call)
        coder.code(&cost)
        coder.code(&bound)
        coder.code(&method)
    }
}
