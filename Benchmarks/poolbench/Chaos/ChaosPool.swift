/// The pools of a run. The raw value is the place in every table.
enum ChaosPool: Int, CaseIterable {
    /// Returns its bodies.
    case echo
    /// 1 ms of CPU a call.
    case cpu
    /// 5 ms of waiting a call.
    case sleeper
    /// Affinity `prefer`.
    case session
    /// Imports numpy in its template.
    case numbers
    /// Without a template.
    case cold
    /// Where the misbehaviour happens.
    case wild
    /// Its one method is renamed by reloads.
    case names
    /// Comes and goes by reloads.
    case extra

    var name: String { "\(self)" }
    var workers: Int {
        switch self {
        case .echo, .cpu, .sleeper, .wild: return 2
        case .session: return 2
        case .numbers, .cold, .names, .extra: return 1
        }
    }
    var maximumWorkers: Int { workers + 2 }
    var usesTemplate: Bool { self != .cold }
    /// Of 1,000 calls.
    var share: Int {
        switch self {
        case .echo: return 620
        case .cpu: return 50
        case .sleeper: return 40
        case .session: return 100
        case .numbers: return 60
        case .cold: return 70
        case .wild: return 30
        case .names: return 20
        case .extra: return 10
        }
    }
    /// The work that its ordinary calls ask for (chaos_worker.py).
    var work: UInt8 {
        switch self {
        case .echo, .session, .cold, .wild, .extra, .names: return UInt8(ascii: "e")
        case .cpu: return UInt8(ascii: "b")
        case .sleeper: return UInt8(ascii: "s")
        case .numbers: return UInt8(ascii: "n")
        }
    }
    /// Its counters live as long as the run, and every call reaches its machine: they can be compared with the client's.
    var isCounted: Bool {
        switch self {
        case .echo, .cpu, .sleeper, .session, .numbers, .cold: return true
        case .wild, .names, .extra: return false
        }
    }
    static func of(_ name: String) -> ChaosPool? { allCases.first { $0.name == name } }
}
