/// Measured run times of each method, and what the pool adds to a call around them.
///
/// Mean and mean deviation are exponentially weighted with 1/64 (Jacobson's estimator as TCP uses it,
/// slower: a single preempted call must not look like a slow method).
struct ServiceTimes {
    struct Method: BitwiseCopyable {
        var samples: UInt32 = 0
        var mean: Nanoseconds = 0
        var deviation: Nanoseconds = 0
        /// Of calls that were their worker's first of this method.
        var firstSamples: UInt32 = 0
        var firstMean: Nanoseconds = 0
        /// When the next call may be let in whose budget is less than what is known.
        var probeAt = Instant.zero
    }

    /// From so many samples on each weighs 1/64.
    private static let window: UInt32 = 64

    /// Below this many samples a method's times are not trusted.
    static let trusted: UInt32 = 8

    private var methods: [Method] = []
    /// Worker time between calls: transport, batching, waiting for a core.
    private var overhead: Int64 = 0
    private var overheadSamples: UInt32 = 0

    /// `isFirst`: the worker's first call of this method. It may load a model for half a minute, and those behind it are not to be refused
    /// for that: it stands for the others only until one of them was measured.
    /// True: the method's cost was not known at all before, or only from first calls.
    @discardableResult
    mutating func record(_ method: UInt16, ran: Nanoseconds, elapsed: Nanoseconds, isFirst: Bool = false) -> Bool {
        prepare(method)
        // A clock jump must not poison the averages.
        let ran = min(ran, 86_400_000_000_000)
        let index = Int(method)
        let extra = Int64(min(elapsed, 10_000_000_000)) - Int64(min(ran, 10_000_000_000))
        if overheadSamples < Self.window { overheadSamples += 1 }
        overhead += (extra - overhead) / Int64(overheadSamples)
        let (known, knownFirst) = (methods[index].samples, methods[index].firstSamples)
        if isFirst {
            if knownFirst < Self.window { methods[index].firstSamples += 1 }
            Self.approach(&methods[index].firstMean, ran, UInt64(methods[index].firstSamples))
            return known == 0 && knownFirst == 0
        }
        // The first samples weigh evenly, later ones 1/64.
        if known < Self.window { methods[index].samples += 1 }
        let weight = UInt64(methods[index].samples)
        Self.approach(&methods[index].mean, ran, weight)
        let mean = methods[index].mean
        Self.approach(&methods[index].deviation, ran > mean ? ran - mean : mean - ran, weight)
        return known == 0
    }

    @inline(__always) private static func approach(_ average: inout Nanoseconds, _ sample: Nanoseconds, _ weight: UInt64) {
        if sample >= average { average += (sample - average) / weight } else { average -= (average - sample) / weight }
    }

    private mutating func prepare(_ method: UInt16) {
        while methods.count <= Int(method) { methods.append(Method()) }
    }

    /// Expected worker time of a call, 0 while unknown.
    func cost(_ method: UInt16) -> Nanoseconds {
        guard Int(method) < methods.count else { return 0 }
        let one = methods[Int(method)]
        guard one.samples > 0 || one.firstSamples > 0 else { return 0 }
        return (one.samples > 0 ? one.mean : one.firstMean) + UInt64(max(0, overhead))
    }

    /// What a call rarely exceeds: mean and four deviations; `nil` while not trusted.
    func bound(_ method: UInt16) -> Nanoseconds? {
        guard Int(method) < methods.count, methods[Int(method)].samples >= Self.trusted else { return nil }
        return methods[Int(method)].mean + 4 * methods[Int(method)].deviation + UInt64(max(0, overhead))
    }

    /// What a call rarely runs shorter than: mean less two deviations; 0 while not trusted.
    func least(_ method: UInt16) -> Nanoseconds {
        guard Int(method) < methods.count, methods[Int(method)].samples >= Self.trusted else { return 0 }
        let (mean, spread) = (methods[Int(method)].mean, 2 * methods[Int(method)].deviation)
        return mean > spread ? mean - spread : 0
    }

    /// Whether a call may be let in although its method takes `own`, which is more than its budget, as far as is known: so seldom that such
    /// calls take a tenth of a worker at most.
    mutating func mayProbe(_ method: UInt16, own: Nanoseconds, now: Instant) -> Bool {
        guard now >= methods[Int(method)].probeAt else { return false }
        methods[Int(method)].probeAt = now + min(own, 3_600_000_000_000) * 10
        return true
    }

    /// A probe has come to its end within its budget: what was known is no longer true.
    mutating func forget(_ method: UInt16) {
        let probeAt = methods[Int(method)].probeAt
        methods[Int(method)] = Method()
        methods[Int(method)].probeAt = probeAt
    }

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&methods, empty: Method()) { method, coder in
            coder.code(&method.samples)
            coder.code(&method.mean)
            coder.code(&method.deviation)
            coder.code(&method.firstSamples)
            coder.code(&method.firstMean)
            coder.code(&method.probeAt)
        }
        coder.code(&overhead)
        coder.code(&overheadSamples)
    }
}
