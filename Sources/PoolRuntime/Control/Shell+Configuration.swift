import PoolConfig
import PoolProtocol

extension Shell {
    /// What holds, with the origin of each value. Environments carry passwords and keys: `/proc` shows them to nobody else, and so
    /// does poold, unless its user may change them.
    func effectiveConfiguration(_ index: Int) -> Poold_V1_EffectiveConfiguration {
        let seesEnvironments = access.mayOperate(connections[index].access)
        var message = Poold_V1_EffectiveConfiguration()
        message.file = loaded.configuration.file ?? ""
        message.values = loaded.values.map { value in
            var line = Poold_V1_ConfigurationValue()
            line.key = value.key
            line.value = seesEnvironments || !Self.isEnvironment(value.key) ? value.value : ConfigurationValue.hidden
            line.origin = value.origin
            return line
        }
        return message
    }

    private static func isEnvironment(_ key: String) -> Bool { key.hasSuffix(".environment") }
}
