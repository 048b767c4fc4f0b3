import Glibc

/// The seed at hand of each job, for when the machine itself traps: a signal handler prints it.
struct SeedBoard {
    static let maximumJobs = 64
    nonisolated(unsafe) private static let seeds = UnsafeMutablePointer<UInt64>.allocate(capacity: maximumJobs)
    nonisolated(unsafe) private static let threads = UnsafeMutablePointer<pthread_t>.allocate(capacity: maximumJobs)
    nonisolated(unsafe) private static var jobs = 0

    static func install(jobs count: Int) {
        jobs = count
        seeds.initialize(repeating: 0, count: maximumJobs)
        threads.initialize(repeating: pthread_self(), count: maximumJobs)
        let report: @convention(c) (Int32) -> Void = { _ in SeedBoard.report() }
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGABRT, SIGBUS, SIGFPE] { signal(number, report) }
    }

    static func begin(job: Int) { threads[job] = pthread_self() }
    static func set(job: Int, seed: UInt64) { seeds[job] = seed }

    /// Unbuffered: a trap loses nothing.
    static func writeLine(_ line: String) {
        var line = line + "\n"
        line.withUTF8 { _ = Glibc.write(1, $0.baseAddress, $0.count) }
    }

    private static func report() {
        for job in 0..<jobs where pthread_equal(threads[job], pthread_self()) != 0 {
            write("\npoolsim: the machine trapped in seed ")
            write(seeds[job])
            write("; see it with: poolsim replay ")
            write(seeds[job])
            write(" --trace\n")
        }
        _exit(1)
    }

    private static func write(_ text: StaticString) { _ = Glibc.write(2, text.utf8Start, text.utf8CodeUnitCount) }

    private static func write(_ number: UInt64) {
        var divisor: UInt64 = 1
        while number / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            var digit = UInt8(0x30 + number / divisor % 10)
            _ = Glibc.write(2, &digit, 1)
            divisor /= 10
        }
    }
}
