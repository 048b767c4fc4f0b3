import CPoold
import Glibc
package import PoolConfig
import Synchronization

/// Reads the configuration again on a thread of its own: files may be slow, and the loop waits for nothing.
package final class Reloader: Sendable {
    private let source: ConfigurationSource
    /// What the thread has found.
    struct Reading {
        var result: ConfigurationResult
        /// Of the pools' modules, by name: the loop must not wait for a file system either.
        var fingerprints: [String: ModuleFingerprint] = [:]
    }

    private let reading = Mutex<Reading?>(nil)
    /// Readable in the loop when a result is there.
    let outcomeEvent: Int32

    package init(source: ConfigurationSource) {
        self.source = source
        outcomeEvent = cpoold_event(true)
    }

    /// From the loop; one at a time. False: no thread could be made.
    func start() -> Bool {
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(self).toOpaque()
        let error = pthread_create(
            &thread, nil,
            { argument in
                cpoold_name_thread("poold-config")
                Unmanaged<Reloader>.fromOpaque(argument!).takeRetainedValue().load()
                return nil
            }, argument)
        guard error == 0 else {
            Unmanaged<Reloader>.fromOpaque(argument).release()
            return false
        }
        pthread_detach(thread)
        return true
    }

    private func load() {
        var found = Reading(result: source.load())
        if case .loaded(let loaded) = found.result {
            for pool in loaded.configuration.pools { found.fingerprints[pool.module] = ModuleFingerprint(module: pool.module) }
        }
        reading.withLock { [found] in $0 = found }
        cpoold_event_signal(outcomeEvent)
    }

    func take() -> Reading? {
        cpoold_event_take(outcomeEvent)
        return reading.withLock { reading in
            defer { reading = nil }
            return reading
        }
    }
}
