import PoolConfig
import PoolProtocol

extension Shell {
    /// What holds, with the origin of each value.
    func effectiveConfiguration() -> Poold_V1_EffectiveConfiguration {
        var message = Poold_V1_EffectiveConfiguration()
        message.file = loaded.configuration.file ?? ""
        message.values = loaded.values.map { value in
            var line = Poold_V1_ConfigurationValue()
            line.key = value.key
            line.value = value.value
            line.origin = value.origin
            return line
        }
        return message
    }
}
