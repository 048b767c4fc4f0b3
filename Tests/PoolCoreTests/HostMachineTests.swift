import PoolCore
import Testing

@Suite struct HostMachineTests {
    private static let patience: Nanoseconds = 30

    /// Events in, effects out; time as a test wants it.
    private struct Host: ~Copyable {
        var machine: HostMachine
        var now = Instant.zero

        mutating func take(_ events: HostMachine.Event...) -> [HostMachine.Effect] {
            var effects: [HostMachine.Effect] = []
            for event in events { machine.handle(event, now: now, into: &effects) }
            return effects
        }

        mutating func allow(_ limit: Int) -> [HostMachine.Effect] {
            var effects: [HostMachine.Effect] = []
            machine.allow(startingAtOnce: limit, now: now, into: &effects)
            return effects
        }
    }

    private func host(_ limit: Int) -> Host { Host(machine: HostMachine(startingAtOnce: limit)) }
    private func worker(_ slot: UInt16) -> WorkerID { WorkerID(slot: slot, generation: 1) }
    private func wanted(_ slot: UInt16) -> HostMachine.Event { .spawnWanted(pool: 0, worker(slot), patience: Self.patience) }
    private func template(_ pool: UInt16) -> HostMachine.Event { .templateWanted(pool: pool, patience: Self.patience) }

    @Test func startsAreGrantedInOrderAndBounded() {
        var host = host(2)
        #expect(host.take(wanted(0), wanted(1), wanted(2), wanted(3)) == [.spawn(pool: 0, worker(0)), .spawn(pool: 0, worker(1))])
        #expect(host.take(.startEnded(pool: 0, worker(2))).isEmpty, "one that waited has given up")
        #expect(host.take(.startEnded(pool: 0, worker(0))) == [.spawn(pool: 0, worker(3))])
    }

    @Test func aHigherLimitIsUsedAtOnceAndALowerOneFromNowOn() {
        var host = host(1)
        _ = host.take(wanted(0), wanted(1), wanted(2), wanted(3), template(0), template(1))
        #expect(host.allow(2) == [.spawn(pool: 0, worker(1)), .startTemplate(pool: 1)])
        #expect(host.allow(1).isEmpty)
        #expect(host.take(.startEnded(pool: 0, worker(0))).isEmpty)
        #expect(host.take(.startEnded(pool: 0, worker(1))) == [.spawn(pool: 0, worker(2))])
    }

    @Test func templatesStartInTurnsBesideTheWorkers() {
        var host = host(2)
        let effects = host.take(template(0), template(1), template(2), template(3), wanted(0))
        #expect(effects == [.startTemplate(pool: 0), .startTemplate(pool: 1), .spawn(pool: 0, worker(0))])
        #expect(host.take(.templateEnded(pool: 2)).isEmpty, "one that waited is not wanted any more")
        #expect(host.take(.templateEnded(pool: 1), .templateEnded(pool: 1)) == [.startTemplate(pool: 3)], "an end that is told twice frees one place")
    }

    @Test func startsThatHangHoldUpTheOthersForAWhile() {
        var host = host(1)
        _ = host.take(wanted(0), template(0))
        #expect(host.machine.nextDeadline == .never, "nobody waits")
        host.now = Instant(nanoseconds: 10)
        #expect(host.take(wanted(1), wanted(2), template(1)).isEmpty)
        #expect(host.machine.nextDeadline == Instant(nanoseconds: 30))
        host.now = Instant(nanoseconds: 29)
        #expect(host.take(.timer).isEmpty)
        host.now = Instant(nanoseconds: 30)
        #expect(host.take(.timer) == [.spawn(pool: 0, worker(1)), .startTemplate(pool: 1)])
        #expect(host.machine.nextDeadline == Instant(nanoseconds: 60))
        #expect(host.take(.startEnded(pool: 0, worker(0)), .templateEnded(pool: 0)).isEmpty, "its place is another's by now")
        #expect(host.take(.startEnded(pool: 0, worker(1))) == [.spawn(pool: 0, worker(2))])
    }

    @Test func aReservedPoolNeedsNoPlace() {
        var host = host(1)
        let effects = host.take(wanted(0), wanted(1), .reservedSpawnWanted(pool: 1, worker(2)))
        #expect(effects == [.spawn(pool: 0, worker(0)), .spawn(pool: 1, worker(2))])
        #expect(host.take(.startEnded(pool: 1, worker(2))).isEmpty)
        #expect(host.take(.startEnded(pool: 0, worker(0))) == [.spawn(pool: 0, worker(1))])
    }
}
