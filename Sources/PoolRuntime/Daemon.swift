import CPoold
import Glibc
package import Logging
package import PoolConfig
import Synchronization

/// Why poold could not start.
package struct StartError: Error, CustomStringConvertible {
    package var description: String
}

/// Assembles poold: guard, listeners, the loop on its own thread, the spawner on the main one.
package enum Daemon {
    /// Runs until it was told to stop. Call on the main thread, before any other thread exists. `applyLog`: after a reload.
    package static func run(
        _ loaded: LoadedConfiguration, source: ConfigurationSource, log: Logger, applyLog: @escaping @Sendable (LogConfiguration) -> Void
    ) throws(StartError) {
        cpoold_hold_standard_descriptors()
        cpoold_block_signals()
        cpoold_become_subreaper()
        cpoold_configure_malloc()
        // Forked first: it stays small and owns no descriptor of ours.
        var guardProcess: Int32 = 0
        let guardPipe = cpoold_guard_start(&guardProcess, false)
        if guardPipe < 0 {
            log.error("no guard: after a kill -9 of poold its workers' children would live on", metadata: ["error": "\(String(cString: strerror(errno)))"])
        }
        _ = cpoold_raise_descriptor_limit()
        let manager = ServiceManager()
        var loaded = loaded
        loaded.configuration = try CanaryPool.added(to: loaded.configuration, watchdogPeriod: manager.watchdogPeriod)
        let sockets = try ActivatedSockets.take(socketPath: loaded.configuration.socketPath, controlPath: loaded.configuration.controlPath)
        if let callers = sockets.callers { loaded.configuration.socketPath = callers.path }
        if let control = sockets.control { loaded.configuration.controlPath = control.path }
        let configuration = loaded.configuration
        let listener = try listen(configuration.socketPath, mode: configuration.socketMode, inherited: sockets.callers)
        let controlListener: Int32
        do { controlListener = try listen(configuration.controlPath, mode: 0o666, inherited: sockets.control) } catch {
            if sockets.callers == nil { unlink(configuration.socketPath) }
            throw error
        }
        if !manager.start() { log.error("the service manager cannot be told anything: no thread for it") }
        let spawner = SpawnService()
        let start = LoopStart(
            loaded: loaded, reloader: Reloader(source: source), log: log, spawner: spawner, listener: listener, controlListener: controlListener,
            guardPipe: guardPipe, guardProcess: guardProcess, manager: manager, sockets: sockets, applyLog: applyLog)
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(start).toOpaque()
        let error = pthread_create(
            &thread, nil,
            { argument in
                cpoold_name_thread("poold-loop")
                Unmanaged<LoopStart>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, argument)
        guard error == 0 else { throw StartError(description: "the loop's thread could not be made: \(String(cString: strerror(error)))") }
        spawner.runOnMainThread()
        pthread_join(thread, nil)
        log.notice("stopped")
    }

    /// Who listens on a socket, for a message.
    private static func listenerProcess(_ path: String) -> String {
        let descriptor = cpoold_connect(path, false)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var uid: UInt32 = 0
        var gid: UInt32 = 0
        var pid: Int32 = 0
        return cpoold_peer(descriptor, &uid, &gid, &pid) == 0 && pid > 0 ? " (pid \(pid))" : ""
    }

    private static func listen(_ path: String, mode: Int32, inherited: ActivatedSockets.Inherited?) throws(StartError) -> Int32 {
        if let inherited { return inherited.descriptor }
        var error: Int32 = 0
        let descriptor = cpoold_listen(path, mode, 16_384, &error)
        if descriptor >= 0 { return descriptor }
        let reason: String
        switch error {
        case EADDRINUSE: reason = "another poold answers there\(listenerProcess(path)); stop it first or choose another --socket"
        case ENAMETOOLONG: reason = "the path has \(path.utf8.count) bytes, a socket's path may have 107; choose a shorter one"
        case EEXIST: reason = "a file that is not a socket is in the way; poold does not remove it"
        case ENOENT: reason = "its folder does not exist; make it first"
        case EACCES, EPERM: reason = "no permission to make it there; check the owner and mode of its folder"
        default: reason = String(cString: strerror(error))
        }
        throw StartError(description: "cannot listen on \(path): \(reason)")
    }
}

/// What the loop's thread begins with.
private final class LoopStart: Sendable {
    private let loaded: LoadedConfiguration
    private let reloader: Reloader
    private let log: Logger
    private let spawner: SpawnService
    private let listener: Int32
    private let controlListener: Int32
    private let guardPipe: Int32
    private let guardProcess: Int32
    private let manager: ServiceManager
    private let sockets: ActivatedSockets
    private let applyLog: @Sendable (LogConfiguration) -> Void

    init(
        loaded: LoadedConfiguration, reloader: Reloader, log: Logger, spawner: SpawnService, listener: Int32, controlListener: Int32, guardPipe: Int32,
        guardProcess: Int32, manager: ServiceManager, sockets: ActivatedSockets, applyLog: @escaping @Sendable (LogConfiguration) -> Void
    ) {
        self.loaded = loaded
        self.reloader = reloader
        self.log = log
        self.spawner = spawner
        self.listener = listener
        self.controlListener = controlListener
        self.guardPipe = guardPipe
        self.guardProcess = guardProcess
        self.manager = manager
        self.sockets = sockets
        self.applyLog = applyLog
    }

    func run() {
        var shell = Shell(
            loaded: loaded, reloader: reloader, log: log, spawner: spawner, listener: listener, controlListener: controlListener, guardPipe: guardPipe,
            guardProcess: guardProcess)
        shell.service.manager = manager
        shell.service.applyLog = applyLog
        shell.service.callersSocketIsInherited = sockets.callers != nil
        shell.service.controlSocketIsInherited = sockets.control != nil
        shell.run()
    }
}
