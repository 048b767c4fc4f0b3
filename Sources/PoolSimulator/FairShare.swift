import PoolCore

/// Identities with a permanent backlog, and methods of their own that take more or less time: each must get its share
/// of the workers' time, and no priority must starve.
package struct FairShare: ~Copyable {
    private static let completions = 2_500
    private static let warmUp = 500

    private struct Tenant {
        var priority: Priority
        var cost: UInt64
        var waiting = 0
        var served: UInt64 = 0
        var time: UInt64 = 0
    }

    private struct Running {
        var number: UInt64
        var tenant: Int
    }

    private var machine: PoolMachine
    private var buffer = EffectBuffer(capacity: 64)
    private var now: UInt64 = 1_000_000_000
    private var tenants: [Tenant] = []
    private var tenantOfCall: [Int] = []
    private var queues: [[Running]]
    private var freeAt: [UInt64]
    /// Calls of each tenant that wait or are at a worker: more than the workers hold, so that some always wait.
    private let backlog: Int

    package init(seed: UInt64) {
        var random = SeededRandom(seed: seed ^ 0xFA12)
        var policy = PoolPolicy()
        policy.workers = 1 + random.below(3)
        policy.window = [1, 4, 16][random.below(3)]
        policy.aheadSpan = 2_000_000
        policy.healthInterval = 0
        policy.defaultBudget = policy.maximumBudget
        policy.overload = random.chance(50) ? .refuse : .newestFirst
        policy.overloadTarget = policy.maximumBudget
        machine = PoolMachine(policy: policy, seed: seed)
        queues = Array(repeating: [], count: policy.workers)
        freeAt = Array(repeating: 0, count: policy.workers)
        backlog = 8 + policy.workers * policy.window
        let usesPriorities = random.chance(30)
        for _ in 0...(1 + random.below(4)) {
            tenants.append(Tenant(priority: usesPriorities ? Priority.allCases[random.below(3)] : .normal, cost: 20_000 << UInt64(random.below(6))))
        }
    }

    package mutating func run() throws(Violation) {
        apply(.timer)
        for slot in queues.indices {
            apply(.workerSpawned(WorkerID(slot: UInt16(slot), generation: 1)))
            apply(.workerReady(WorkerID(slot: UInt16(slot), generation: 1)))
        }
        for tenant in tenants.indices { refill(tenant) }
        for completion in 0..<Self.completions {
            if completion == Self.warmUp {
                for tenant in tenants.indices {
                    tenants[tenant].served = 0
                    tenants[tenant].time = 0
                }
            }
            var next: Int?
            for slot in queues.indices where !queues[slot].isEmpty { if next == nil || freeAt[slot] < freeAt[next!] { next = slot } }
            guard let slot = next else { throw Violation(text: "fair shares: calls wait and no worker runs one") }
            now = max(now, freeAt[slot])
            let done = queues[slot].removeFirst()
            let cost = tenants[done.tenant].cost
            tenants[done.tenant].served += 1
            tenants[done.tenant].time += cost
            tenants[done.tenant].waiting -= 1
            if let following = queues[slot].first { freeAt[slot] = now + tenants[following.tenant].cost }
            apply(.workerReplied(WorkerID(slot: UInt16(slot), generation: 1), number: done.number, kind: .result, ran: cost))
            refill(done.tenant)
            if let deadline = machine.nextDeadline, deadline.nanoseconds <= now { apply(.timer) }
        }
        try judge()
    }

    private mutating func refill(_ tenant: Int) {
        while tenants[tenant].waiting < backlog {
            tenants[tenant].waiting += 1
            let arrival = Arrival(
                identity: IdentityID(index: UInt16(tenant)), method: MethodID(index: UInt16(tenant)), priority: tenants[tenant].priority, bodyBytes: 10)
            apply(.callArrived(arrival), arriving: tenant)
        }
    }

    private mutating func apply(_ event: Event, arriving tenant: Int = 0) {
        buffer.removeAll()
        machine.handle(event, now: Instant(nanoseconds: now), into: &buffer)
        var at = 0
        while at < buffer.effects.count {
            switch buffer.effects[at] {
            case .admit(let call):
                while tenantOfCall.count <= Int(call.index) { tenantOfCall.append(0) }
                tenantOfCall[Int(call.index)] = tenant
            case .send(let call, let worker, let number, _):
                let slot = Int(worker.slot)
                let tenant = tenantOfCall[Int(call.index)]
                if queues[slot].isEmpty { freeAt[slot] = now + tenants[tenant].cost }
                queues[slot].append(Running(number: number, tenant: tenant))
            case .takeBack(let worker, let first, let last):
                let slot = Int(worker.slot)
                let started = queues[slot].first?.number ?? 0
                queues[slot].removeAll { $0.number >= first && $0.number <= last && $0.number > started }
                machine.handle(.workerRevoked(worker, first: first, last: last, started: started), now: Instant(nanoseconds: now), into: &buffer)
            case .refuse, .deliver, .finish, .release, .blame, .revoke, .spawn, .ping, .drainWorker, .terminate, .kill, .measure, .publish, .stopped: break
            }
            at += 1
        }
    }

    private func judge() throws(Violation) {
        for priority in Priority.allCases {
            var least = UInt64.max
            var most: UInt64 = 0
            var longest: UInt64 = 0
            for tenant in tenants where tenant.priority == priority {
                guard tenant.served > 0 else { throw Violation(text: "fair shares: somebody of priority \(priority) is starved: \(description)") }
                least = min(least, tenant.time)
                most = max(most, tenant.time)
                longest = max(longest, tenant.cost)
            }
            // Start-time fair queueing: shares differ by a few calls of the longest kind, however long it goes on.
            guard most == 0 || most - least <= least / 10 + 8 * longest else {
                throw Violation(text: "fair shares: from \(least) to \(most) ns at priority \(priority): \(description)")
            }
        }
    }

    private var description: String {
        tenants.map { "\($0.priority) \($0.cost) ns × \($0.served)" }.joined(separator: ", ")
    }
}
