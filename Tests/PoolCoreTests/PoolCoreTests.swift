import Testing
@testable import PoolCore
