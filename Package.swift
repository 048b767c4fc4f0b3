// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
    name: "poold",
    platforms: [.macOS(.v15)],
    products: [
        .executable(name: "poold", targets: ["poold"]),
        .executable(name: "poolctl", targets: ["poolctl"]),
        .executable(name: "poolbench", targets: ["poolbench"]),
        .executable(name: "poolsim", targets: ["poolsim"]),
    ],
    dependencies: [
        // Arguments, help and shell completion of the executables.
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        // The log API that every Swift service already uses.
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        // Control and metadata messages: readable by any language.
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
        // The configuration file: YAML 1.1 with the position of every node.
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        // Percentiles without coordinated omission or fixed buckets.
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        .target(name: "PoolCore", swiftSettings: strict),
        .target(name: "PoolWire", swiftSettings: strict),
        .target(name: "PoolSimulator", dependencies: ["PoolCore"], swiftSettings: strict),
        .target(name: "CPoold", cSettings: [.define("_GNU_SOURCE")]),
        // sd_notify, the watchdog and socket activation, as systemd itself means them.
        .systemLibrary(name: "CSystemd", pkgConfig: "libsystemd", providers: [.apt(["libsystemd-dev"])]),
        .target(
            name: "PoolProtocol",
            dependencies: [.product(name: "SwiftProtobuf", package: "swift-protobuf")],
            swiftSettings: strict),
        .target(name: "PoolConfig", dependencies: ["PoolCore", .product(name: "Yams", package: "Yams")], swiftSettings: strict),
        .target(
            name: "PoolTelemetry", dependencies: ["PoolConfig", .product(name: "Logging", package: "swift-log")], swiftSettings: strict),
        .target(
            name: "PoolRuntime",
            dependencies: [
                "CPoold", "CSystemd", "PoolConfig", "PoolCore", "PoolWire", "PoolProtocol",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ],
            swiftSettings: strict),
        .target(name: "PoolClient", dependencies: ["CPoold", "PoolWire"], swiftSettings: strict),
        .executableTarget(
            name: "poold",
            dependencies: [
                "PoolConfig", "PoolRuntime", "PoolTelemetry", .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "poolctl",
            dependencies: [
                "CPoold", "PoolClient", "PoolConfig", "PoolCore", "PoolProtocol", "PoolWire",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict,
            // At a fixed address: it is run anew for each answer, and relocations were a fifth of its time.
            linkerSettings: [.unsafeFlags(["-Xlinker", "-no-pie"])]),
        .executableTarget(
            name: "poolbench",
            dependencies: [
                "CPoold", "PoolClient", "PoolProtocol", "PoolWire",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ],
            path: "Benchmarks/poolbench",
            swiftSettings: strict),
        .executableTarget(
            name: "poolsim",
            dependencies: [
                "PoolSimulator", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        .testTarget(name: "PoolWireTests", dependencies: ["PoolWire"], swiftSettings: strict),
        .testTarget(name: "PoolConfigTests", dependencies: ["PoolConfig", "PoolCore"], swiftSettings: strict),
        .testTarget(
            name: "PoolTelemetryTests", dependencies: ["PoolConfig", "PoolTelemetry", .product(name: "Logging", package: "swift-log")], swiftSettings: strict),
        // The judgements of the chaos run.
        .testTarget(name: "PoolbenchTests", dependencies: ["poolbench", "PoolProtocol", "PoolWire"], swiftSettings: strict),
        // Histogram: the reference that the buckets and percentiles of the core are compared with.
        .testTarget(
            name: "PoolCoreTests", dependencies: ["PoolCore", .product(name: "Histogram", package: "hdrhistogram-swift")], swiftSettings: strict),
    ]
)
