import Glibc
import PoolConfig

/// A pool's module, imported in a throw-away process the way its template would.
enum PoolCheck {
    static let limit = 60.0

    static func findings(_ pool: PoolConfiguration) -> [Finding] {
        guard !pool.isReserved else { return [] }
        let area = "pool \(pool.name)"
        guard let program = ProgramRun.find(pool.python) else {
            return [
                .fail(area, "python", "\(pool.python) is not there", costs: "calls of the pool are refused", advice: "name another with `python:`")
            ]
        }
        let environment = pool.environment.merging(PythonCheck.searching(pool.pythonPath)) { $1 }
        let run: ProgramRun
        do throws(ProgramRun.Failure) {
            run = try ProgramRun.run([program, "-c", script, pool.module], environment: environment, directory: pool.directory, seconds: limit)
        } catch {
            return [.fail(area, "module", error.text, costs: "calls of the pool are refused", advice: "check `python:` and `directory:`")]
        }
        let facts = PythonCheck.parse(run.report)
        if run.isTimeout {
            return [
                .fail(
                    area, "module", "importing \(pool.module) took more than \(Int(limit)) s", costs: "workers may start too late and be killed",
                    advice: "load big data in @worker.setup, or raise start_timeout")
            ]
        }
        guard facts["methods"] != nil else {
            let reason = facts["error"] ?? (run.status >= 1000 ? "it died of signal \(run.status - 1000)" : "it ended with status \(run.status)")
            return [
                .fail(
                    area, "module", "\(pool.module) cannot be imported: \(reason)", costs: "calls of the pool are refused",
                    advice:
                        "run it yourself: \(program) -c 'import \(pool.module.hasSuffix(".py") ? "runpy; runpy.run_path(\"\(pool.module)\")" : pool.module)'")
            ]
        }
        let seconds = Double(facts["seconds"] ?? "") ?? 0
        let resident = Format.bytes(UInt64(facts["resident"] ?? "") ?? 0)
        let span = Format.span(UInt64(seconds * 1e9))
        var list = [Finding.ok(area, "module", "\(pool.module): \(facts["methods"]!) method(s), imported in \(span), \(resident) resident")]
        list.append(template(pool, area, threads: facts["threads"] ?? "", span: span))
        return list
    }

    private static func template(_ pool: PoolConfiguration, _ area: String, threads: String, span: String) -> Finding {
        if !pool.usesTemplate {
            return threads.isEmpty
                ? .warn(
                    area, "template", "is off, though the import starts no thread", costs: "each worker takes \(span) to start and shares no memory",
                    advice: "`template: true` unless a library cannot be forked")
                : .ok(area, "template", "is off; the import starts threads")
        }
        guard !threads.isEmpty else { return .ok(area, "template", "safe: no thread runs after the import") }
        return .warn(
            area, "template", "the import starts threads: \(threads)",
            costs: "a process with threads cannot be forked safely: workers start cold, \(span) each, and share no memory",
            advice: "start threads in @worker.setup, or `template: false` to say that it is meant")
    }

    private static let script = """
        import sys, os, time
        report = os.fdopen(3, "w")
        def say(name, value):
            report.write(name + "\\t" + str(value).replace("\\n", " ")[:2000] + "\\n")
            report.flush()
        try:
            from poold import _process, _registry, template
            for name in template._THREAD_LIMITS:
                os.environ.setdefault(name, "1")
            began = time.monotonic()
            _registry.load(sys.argv[1])
            say("seconds", time.monotonic() - began)
            say("threads", ", ".join(_process.other_threads()[:8]))
            with open("/proc/self/statm") as statm:
                say("resident", int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
            say("methods", len(_registry.METHODS))
        except BaseException as error:
            say("error", type(error).__name__ + ": " + str(error))
        os._exit(0)
        """
}
