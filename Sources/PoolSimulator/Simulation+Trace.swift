extension Simulation {
    /// Types' names say nothing to who reads a trace.
    static func readable(_ line: String) -> String {
        var text = line
        for (long, short) in [
            ("PoolCore.", ""), ("CallID(index: ", "call("), ("WorkerID(slot: ", "worker("), ("IdentityID(index: ", "identity("),
            ("MethodID(index: ", "method("), ("Instant(nanoseconds: ", "at("), ("generation: ", "generation "), ("Notice.", ""), ("WorkerPhase.", ""),
            ("WorkerCause.", ""), ("ReplyKind.", ""), ("Outcome.", ""), ("Priority.", ""), ("Reason.", ""), ("PoolHealth.", ""), ("CircuitState.", ""),
            ("ExitCause.", ""),
        ] {
            text = text.replacing(long, with: short)
        }
        return text
    }
}
