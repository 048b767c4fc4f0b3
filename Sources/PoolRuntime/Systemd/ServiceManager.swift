import CPoold
import CSystemd
import Glibc
import Synchronization

/// What systemd is told, by sd_notify(3).
enum ServiceNotice: Equatable, Sendable {
    case ready
    /// Followed by `ready` once the new configuration holds; when it began, CLOCK_MONOTONIC ns.
    case reloading(at: UInt64)
    case stopping
    /// The start takes longer: so much more from now, ns.
    case extendStart(by: UInt64)

    var text: String {
        switch self {
        case .ready: "READY=1"
        case .reloading(let at): "RELOADING=1\nMONOTONIC_USEC=\(at / 1000)"
        case .stopping: "STOPPING=1"
        case .extendStart(let span): "EXTEND_TIMEOUT_USEC=\(span / 1000)"
        }
    }
}

/// What waits to be told. Bounded: of the status and the watchdog only the latest counts.
struct ServiceMailbox: Sendable {
    /// Changes of state that may wait; a manager that has not read so many gets the newest.
    static let maximumNotices = 16
    private(set) var notices: [ServiceNotice] = []
    private(set) var status: String?
    private(set) var isAlive = false

    mutating func add(_ notice: ServiceNotice) {
        if notices.count == Self.maximumNotices { notices.removeFirst() }
        notices.append(notice)
    }
    mutating func setStatus(_ line: String) { status = line }
    mutating func setAlive() { isAlive = true }

    /// The messages, in order; empties the box.
    mutating func take() -> [String] {
        var messages = notices.map(\.text)
        // With the first change of state, so that `systemctl status` never shows the line of the state before.
        if let status {
            if messages.isEmpty { messages.append("STATUS=\(status)") } else { messages[0] += "\nSTATUS=\(status)" }
        }
        if isAlive { messages.append("WATCHDOG=1") }
        self = ServiceMailbox()
        return messages
    }
}

/// The service manager that started poold, if one did.
///
/// sd_notify sends a datagram on a blocking socket: a manager that hangs fills its queue and would hold the loop. So a
/// thread of its own sends, and the loop only leaves word.
final class ServiceManager: Sendable {
    /// Whether somebody listens on NOTIFY_SOCKET.
    let isPresent: Bool
    /// Within what it wants to hear WATCHDOG=1, ns; 0: it does not watch.
    let watchdogPeriod: UInt64
    private let mailbox = Mutex(ServiceMailbox())
    private let event: Int32

    /// Reads the environment. Before other threads exist.
    init() {
        isPresent = getenv("NOTIFY_SOCKET") != nil
        var microseconds: UInt64 = 0
        watchdogPeriod = isPresent && sd_watchdog_enabled(0, &microseconds) > 0 ? microseconds &* 1000 : 0
        event = isPresent ? cpoold_event(false) : -1
    }

    /// Starts the thread that sends. False: it could not be made, and nobody will be told anything.
    func start() -> Bool {
        guard isPresent else { return true }
        var thread = pthread_t()
        let error = pthread_create(
            &thread, nil,
            { argument in
                cpoold_name_thread("poold-notify")
                Unmanaged<ServiceManager>.fromOpaque(argument!).takeRetainedValue().send()
            }, Unmanaged.passRetained(self).toOpaque())
        guard error == 0 else { return false }
        pthread_detach(thread)
        return true
    }

    func tell(_ notice: ServiceNotice) { leave { $0.add(notice) } }
    func tell(_ notice: ServiceNotice, status: String) {
        leave {
            $0.add(notice)
            $0.setStatus(status)
        }
    }
    func tell(status: String) { leave { $0.setStatus(status) } }
    func feedWatchdog() { leave { $0.setAlive() } }

    private func leave(_ word: (inout ServiceMailbox) -> Void) {
        guard isPresent else { return }
        mailbox.withLock { word(&$0) }
        cpoold_event_signal(event)
    }

    /// The thread's life; it ends with the process.
    private func send() -> Never {
        while true {
            cpoold_event_take(event)
            for message in mailbox.withLock({ $0.take() }) { _ = sd_notify(0, message) }
        }
    }
}
