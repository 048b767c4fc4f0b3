/// Measured run times of each method, and what the pool adds to a call around them.
///
/// Mean and mean deviation are exponentially weighted with 1/64 (Jacobson's estimator as TCP uses it,
/// slower: a single preempted call must not look like a slow method).
struct ServiceTimes {
    struct Method: BitwiseCopyable {
        var samples: UInt32 = 0
        var mean: Nanoseconds = 0
        var deviation: Nanoseconds = 0
    }

    /// Below this many samples a method's times are not trusted.
    static let trusted: UInt32 = 8

    private var methods: [Method] = []
    /// Worker time between calls: transport, batching, waiting for a core.
    private var overhead: Int64 = 0
    private var overheadSamples: UInt32 = 0

    mutating func record(_ method: UInt16, ran: Nanoseconds, elapsed: Nanoseconds) {
        prepare(method)
        // A clock jump must not poison the averages.
        let ran = min(ran, 86_400_000_000_000)
        let index = Int(method)
        let old = methods[index]
        if old.samples < 64 { methods[index].samples += 1 }
        // The first samples weigh evenly, later ones 1/64.
        let weight = UInt64(methods[index].samples)
        if ran >= old.mean {
            methods[index].mean += (ran - old.mean) / weight
        } else {
            methods[index].mean -= (old.mean - ran) / weight
        }
        let distance = ran > methods[index].mean ? ran - methods[index].mean : methods[index].mean - ran
        if distance >= old.deviation {
            methods[index].deviation += (distance - old.deviation) / weight
        } else {
            methods[index].deviation -= (old.deviation - distance) / weight
        }
        let extra = Int64(min(elapsed, 10_000_000_000)) - Int64(min(ran, 10_000_000_000))
        if overheadSamples < 64 { overheadSamples += 1 }
        overhead += (extra - overhead) / Int64(overheadSamples)
    }

    private mutating func prepare(_ method: UInt16) {
        while methods.count <= Int(method) { methods.append(Method()) }
    }

    /// Expected worker time of a call as predictions take it, 0 while not trusted: the first call of a method may load a model for half a
    /// minute, and those behind it are not refused for that.
    func expected(_ method: UInt16) -> Nanoseconds {
        Int(method) < methods.count && methods[Int(method)].samples >= Self.trusted ? cost(method) : 0
    }

    /// Worker time of a call as far as it is known, for fair shares: a guess is fairer than none there.
    func cost(_ method: UInt16) -> Nanoseconds {
        guard Int(method) < methods.count, methods[Int(method)].samples > 0 else { return 0 }
        return methods[Int(method)].mean + UInt64(max(0, overhead))
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

    mutating func code(_ coder: inout StateCoder) {
        coder.code(&methods, empty: Method()) { method, coder in
            coder.code(&method.samples)
            coder.code(&method.mean)
            coder.code(&method.deviation)
        }
        coder.code(&overhead)
        coder.code(&overheadSamples)
    }
}
