import PoolCore
import PoolProtocol

/// Where a worker of a warming job is.
///
/// - waiting: its turn has not come. → warming, gone
/// - warming: the call is at the worker, or waits behind others there. → warm, failed, gone
/// - warm, failed, gone: over
enum WarmingState: String {
    case waiting, warming, warm, failed
    /// It ended, or was replaced, before it could be warmed.
    case gone
}

/// One `poolctl warm`: some workers of a pool, a few at a time, so that the others go on serving.
struct WarmingJob {
    struct Entry {
        var worker: WorkerID
        var call = CallID.none
        var state = WarmingState.waiting
        var commands: [Poold_V1_WarmedCommand] = []
        var problem = ""
    }
    var number: UInt64
    var pool: Int
    var poolName: String
    /// Workers that are warmed at the same time.
    var atOnce: Int
    var entries: [Entry]
    /// Of the commands' texts in `entries`.
    var textBytes = 0

    var isFinished: Bool { entries.allSatisfy { $0.state != .waiting && $0.state != .warming } }

    var message: Poold_V1_WarmProgress {
        var message = Poold_V1_WarmProgress()
        message.job = number
        message.pool = poolName
        message.finished = isFinished
        for entry in entries {
            var line = Poold_V1_WarmedWorker()
            line.worker = "\(entry.worker.slot).\(entry.worker.generation)"
            line.state = entry.state.rawValue
            line.commands = entry.commands
            line.problem = entry.problem
            message.workers.append(line)
        }
        return message
    }
}

/// The jobs that run, at most one of each pool, and the last ones that are over.
struct WarmingTable {
    static let maximumFinished = 16
    /// Bytes of a worker's answer that are looked at, and of each text in it that are kept.
    static let maximumAnswer = 1 << 20
    static let maximumText = 8192
    /// Bytes of the texts of all workers of a job; of those beyond it only the state is kept, and the beginning of the problem.
    static let maximumJobText = 4 << 20
    static let shortText = 256
    /// As many as a configuration may have.
    static let maximumCommands = 256

    private(set) var jobs: [WarmingJob] = []
    private var nextNumber: UInt64 = 1
    /// A worker has become free for the next one.
    var isDue = false
    /// Whose call arrives: place of the job, and in it.
    var arriving = (job: 0, entry: 0)

    func job(_ number: UInt64) -> WarmingJob? { jobs.first { $0.number == number } }
    func runningJob(ofPool name: String) -> WarmingJob? { jobs.first { $0.poolName == name && !$0.isFinished } }

    mutating func begin(pool: Int, name: String, atOnce: Int, workers: [WorkerID]) -> UInt64 {
        let finished = jobs.indices.filter { jobs[$0].isFinished }
        for place in finished.dropLast(Self.maximumFinished - 1).reversed() { jobs.remove(at: place) }
        let number = nextNumber
        nextNumber += 1
        jobs.append(WarmingJob(number: number, pool: pool, poolName: name, atOnce: atOnce, entries: workers.map { WarmingJob.Entry(worker: $0) }))
        isDue = true
        return number
    }

    /// The next worker whose turn it is, now under way.
    mutating func next() -> (pool: Int, poolName: String, worker: WorkerID, job: UInt64)? {
        for place in jobs.indices {
            var warming = 0
            for entry in jobs[place].entries where entry.state == .warming { warming += 1 }
            guard warming < jobs[place].atOnce, let at = jobs[place].entries.firstIndex(where: { $0.state == .waiting }) else { continue }
            jobs[place].entries[at].state = .warming
            arriving = (place, at)
            return (jobs[place].pool, jobs[place].poolName, jobs[place].entries[at].worker, jobs[place].number)
        }
        isDue = false
        return nil
    }

    mutating func admitted(_ call: CallID) { jobs[arriving.job].entries[arriving.entry].call = call }
    mutating func refused(_ state: WarmingState, _ problem: String) { end(arriving.job, arriving.entry, state, problem) }

    /// The worker that this call was to warm; the job and its last state, for the log.
    mutating func ended(
        _ number: UInt64, _ call: CallID, _ state: WarmingState, commands: [Poold_V1_WarmedCommand] = [], _ problem: String
    ) -> (job: WarmingJob, entry: WarmingJob.Entry)? {
        guard let place = jobs.firstIndex(where: { $0.number == number }),
            let at = jobs[place].entries.firstIndex(where: { $0.state == .warming && $0.call == call })
        else { return nil }
        let size = commands.reduce(0) { $0 + 64 + $1.command.utf8.count + $1.problem.utf8.count }
        if jobs[place].textBytes + size <= Self.maximumJobText {
            jobs[place].textBytes += size
            jobs[place].entries[at].commands = commands
        }
        end(place, at, state, problem)
        return (jobs[place], jobs[place].entries[at])
    }

    private mutating func end(_ place: Int, _ at: Int, _ state: WarmingState, _ problem: String) {
        let room = max(Self.shortText, Self.maximumJobText - jobs[place].textBytes)
        let kept = problem.utf8.count <= room ? problem : String(decoding: problem.utf8.prefix(room), as: UTF8.self)
        jobs[place].textBytes += kept.utf8.count
        jobs[place].entries[at].state = state
        jobs[place].entries[at].problem = kept
        isDue = true
    }
}
