import CPoold
import Glibc

/// A program that runs for a short while, in a process group of its own that dies with this process.
struct ProgramRun {
    /// Exit status, or 1000 + signal.
    var status: Int32
    var output: String
    var errors: String
    /// What it wrote to descriptor 3.
    var report: String
    var isTimeout: Bool

    static let largestOutput = 256 << 10
    static let slice: Int32 = 20

    struct Failure: Error { var text: String }

    /// Runs it to its end, or kills it and what it started after so many seconds.
    static func run(_ arguments: [String], environment: [String: String] = [:], directory: String? = nil, seconds: Double) throws(Failure) -> ProgramRun {
        var pipes = Pipes()
        defer { pipes.close() }
        guard pipes.open() else { throw Failure(text: "no pipe: \(String(cString: strerror(errno)))") }
        let pid = try spawn(arguments, environment, directory, [-1] + pipes.writers)
        pipes.closeWriters()
        let end = cpoold_now() + UInt64(seconds * 1e9)
        var isTimeout = false
        // Its own end counts, not that of its pipes: a grandchild may hold those.
        while cpoold_peek_exited() != pid {
            if cpoold_now() >= end {
                isTimeout = true
                break
            }
            _ = pipes.read(milliseconds: slice)
        }
        // Before its leader is reaped: then the number can mean no other group.
        kill(-pid, SIGKILL)
        var status: Int32 = 0
        while cpoold_reap(pid, &status) == EAGAIN { usleep(1000) }
        while pipes.read(milliseconds: 0) {}
        let texts = pipes.texts.map { String(decoding: $0, as: UTF8.self) }
        return ProgramRun(status: status, output: texts[0], errors: texts[1], report: texts[2], isTimeout: isTimeout)
    }

    /// The absolute path of a program, as a shell would find it.
    static func find(_ program: String) -> String? {
        if program.contains("/") { return access(program, X_OK) == 0 ? program : nil }
        guard let path = getenv("PATH") else { return nil }
        for folder in String(cString: path).split(separator: ":") where access("\(folder)/\(program)", X_OK) == 0 { return "\(folder)/\(program)" }
        return nil
    }

    private static func spawn(_ arguments: [String], _ environment: [String: String], _ directory: String?, _ descriptors: [Int32]) throws(Failure) -> Int32 {
        var variables: [String] = []
        var at = environ
        while let entry = at.pointee {
            let text = String(cString: entry)
            if environment[String(text.prefix { $0 != "=" })] == nil { variables.append(text) }
            at += 1
        }
        variables += environment.map { "\($0.key)=\($0.value)" }
        var argv = arguments.map { strdup($0) } + [nil]
        var envp = variables.map { strdup($0) } + [nil]
        let path = strdup(arguments[0])
        let folder = directory.map { strdup($0) } ?? nil
        defer {
            for text in argv + envp { free(text) }
            free(path)
            free(folder)
        }
        var error: Int32 = 0
        var step: Int32 = 0
        let pid = argv.withUnsafeMutableBufferPointer { argv in
            envp.withUnsafeMutableBufferPointer { envp in
                descriptors.withUnsafeBufferPointer { descriptors in
                    var order = cpoold_spawn()
                    order.path = UnsafePointer(path)
                    order.argv = UnsafePointer(argv.baseAddress)
                    order.envp = UnsafePointer(envp.baseAddress)
                    order.descriptors = descriptors.baseAddress
                    order.descriptor_count = Int32(descriptors.count)
                    order.directory = UnsafePointer(folder)
                    return cpoold_spawn(&order, &error, &step)
                }
            }
        }
        guard pid > 0 else { throw Failure(text: "\(arguments[0]) cannot be started: \(String(cString: strerror(error)))") }
        return pid
    }
}

/// The reading ends of a program's stdout, stderr and report.
private struct Pipes {
    private var readers: [Int32] = []
    private(set) var writers: [Int32] = []
    private(set) var texts = [[UInt8]](repeating: [], count: 3)

    mutating func open() -> Bool {
        for _ in 0..<3 {
            var pair: [Int32] = [-1, -1]
            guard cpoold_pipe(&pair) == 0 else { return false }
            readers.append(pair[0])
            writers.append(pair[1])
        }
        return true
    }

    /// Reads what is there, waiting at most so long. False: nothing came.
    mutating func read(milliseconds: Int32) -> Bool {
        var waits = readers.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        // With every pipe at its end this is only the wait.
        guard poll(&waits, nfds_t(waits.count), milliseconds) > 0 else { return false }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        var hasCome = false
        for index in readers.indices where waits[index].revents != 0 {
            let count = buffer.withUnsafeMutableBytes { Glibc.read(readers[index], $0.baseAddress!, $0.count) }
            if count <= 0 {
                Glibc.close(readers[index])
                readers[index] = -1
            } else {
                hasCome = true
                // More than that is read, so that the program can go on, and dropped.
                if texts[index].count < ProgramRun.largestOutput { texts[index].append(contentsOf: buffer[..<count]) }
            }
        }
        return hasCome
    }

    mutating func closeWriters() {
        for descriptor in writers { Glibc.close(descriptor) }
        writers = []
    }

    mutating func close() {
        closeWriters()
        for descriptor in readers where descriptor >= 0 { Glibc.close(descriptor) }
        readers = []
    }
}
