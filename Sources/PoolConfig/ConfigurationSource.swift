import Glibc

/// Where a configuration comes from: a file (with its `pools.d` folder), options of the command line, or neither.
/// A reload loads the same source again.
package struct ConfigurationSource: Sendable {
    /// nil: no file is read.
    package var file: String?
    /// Options, over everything that files say.
    package var overrides: [ConfigurationOverride] = []
    /// Pools of the command line. Without any and without a file, the example pools are served.
    package var pools: [PoolOption] = []

    package init(file: String?, overrides: [ConfigurationOverride] = [], pools: [PoolOption] = []) {
        self.file = file
        self.overrides = overrides
        self.pools = pools
    }

    /// Neither a file nor pools are named: the example pools on a private socket.
    package var isEmbedded: Bool { file == nil && pools.isEmpty }

    /// $POOLD_CONFIG, then /etc/poold/poold.yaml where it exists; nil: neither.
    package static func usualFile() -> String? {
        if let named = getenv("POOLD_CONFIG"), named.pointee != 0 { return String(cString: named) }
        return access(usualPath, F_OK) == 0 ? usualPath : nil
    }

    package static let usualPath = "/etc/poold/poold.yaml"

    /// Reads everything anew. Every problem is found, not the first alone.
    package func load() -> ConfigurationResult {
        var loader = ConfigurationLoader()
        return loader.load(self)
    }
}

/// An option that stands for a key: `daemon.socket`, or `workers` for every pool.
package struct ConfigurationOverride: Sendable {
    package var key: String
    package var values: [String]
    package var isList: Bool
    /// `--workers`, for messages.
    package var option: String

    package init(_ key: String, _ value: String, option: String) {
        self.key = key
        values = [value]
        isList = false
        self.option = option
    }

    package init(_ key: String, list: [String], option: String) {
        self.key = key
        values = list
        isList = true
        self.option = option
    }
}

/// `--pool NAME=MODULE`
package struct PoolOption: Sendable {
    package var name: String
    package var module: String

    package init(name: String, module: String) {
        self.name = name
        self.module = module
    }
}

package enum ConfigurationResult: Sendable {
    case loaded(LoadedConfiguration)
    case refused([ConfigurationProblem])
}

package struct LoadedConfiguration: Sendable {
    package var configuration: Configuration
    /// Every key that holds, in the order of the reference, pools in their order.
    package var values: [ConfigurationValue]
}

package struct ConfigurationValue: Sendable, Equatable {
    /// Stands for an environment, which carries passwords and keys, before those who may not operate. No value reads so.
    package static let hidden = "(shown to who may operate)"

    /// Dotted path.
    package var key: String
    /// One line of YAML; empty: nothing.
    package var value: String
    /// `default`, `option` or `FILE:LINE`
    package var origin: String

    package init(key: String, value: String, origin: String) {
        self.key = key
        self.value = value
        self.origin = origin
    }
}
