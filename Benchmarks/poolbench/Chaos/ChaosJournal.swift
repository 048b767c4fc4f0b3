import Glibc

/// What the workers really began, of the calls that were asked to be noted; and what their callers were told.
struct ChaosJournal {
    private let path: String
    /// By the call's number in the journal.
    private var runs: [UInt8] = []
    private var idempotent: [Bool] = []
    private var told: [Told] = []
    private enum Told: UInt8 { case nothing, result, notBegun, maybeBegun }

    init(path: String) { self.path = path }

    var count: Int { runs.count }

    /// The number that a new call is noted by.
    mutating func add(idempotent: Bool) -> UInt32 {
        runs.append(0)
        self.idempotent.append(idempotent)
        told.append(.nothing)
        return UInt32(runs.count - 1)
    }

    mutating func endedWithResult(_ number: UInt32) { told[Int(number)] = .result }
    mutating func endedWithError(_ number: UInt32, notBegun: Bool) { told[Int(number)] = notBegun ? .notBegun : .maybeBegun }

    /// Only for sabotage: a call that may run once has its line twice.
    func repeatOne() {
        guard let number = idempotent.indices.first(where: { !idempotent[$0] && told[$0] == .result }) else { return }
        let descriptor = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        let line = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) } + [0, 0, 0, 0]
        _ = line.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        close(descriptor)
    }

    /// Reads the whole journal and compares; what is wrong, one line each. Call when nothing runs any more.
    mutating func verify() -> [String] {
        var problems: [String] = []
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return ["the journal \(path) cannot be read: \(String(cString: strerror(errno)))"] }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        var left = 0
        while true {
            let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress! + left, $0.count - left) }
            guard count > 0 else { break }
            let total = left + count
            var at = 0
            while at + 8 <= total {
                let number = Int(buffer[at]) << 24 | Int(buffer[at + 1]) << 16 | Int(buffer[at + 2]) << 8 | Int(buffer[at + 3])
                if number < runs.count {
                    runs[number] = min(runs[number], 254) + 1
                } else {
                    problems.append("the journal holds call \(number), which was never made")
                }
                at += 8
            }
            for rest in at..<total { buffer[rest - at] = buffer[rest] }
            left = total - at
        }
        for number in runs.indices {
            if runs[number] > 1 && !idempotent[number] { problems.append("call \(number) of the journal ran \(runs[number]) times and is not idempotent") }
            if runs[number] > 0 && told[number] == .notBegun {
                problems.append("call \(number) of the journal ran, and its caller was told that it did not begin")
            }
            if runs[number] == 0 && told[number] == .result { problems.append("call \(number) of the journal has a result and never ran") }
        }
        return problems
    }
}
