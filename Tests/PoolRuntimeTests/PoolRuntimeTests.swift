import Testing

@testable import PoolRuntime
