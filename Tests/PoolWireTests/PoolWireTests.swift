import Testing

@testable import PoolWire
