import CPoold
import Glibc
package import PoolConfig
import Synchronization

/// Reads the configuration again on a thread of its own: files may be slow, and the loop waits for nothing.
package final class Reloader: Sendable {
    private let source: ConfigurationSource
    private let result = Mutex<ConfigurationResult?>(nil)
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
        let loaded = source.load()
        result.withLock { $0 = loaded }
        cpoold_event_signal(outcomeEvent)
    }

    func take() -> ConfigurationResult? {
        cpoold_event_take(outcomeEvent)
        return result.withLock { result in
            defer { result = nil }
            return result
        }
    }
}
