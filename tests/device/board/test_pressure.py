"""The memory watch with injected readings: when it speaks, what it says, and that it waits after a step-down."""

from __future__ import annotations

from dataclasses import dataclass

from edge_far.device.board.memory import ResidentSet
from edge_far.device.board.pressure import SETTLING_S, SETTLING_STEPS, MemoryWatch, memory_psi_percent


@dataclass
class Machine:
    """What the watch reads."""

    resident_mib: float = 50.0
    available_mib: float | None = 500.0
    psi_percent: float | None = 0.0
    clock_s: float = 0.0

    def watch(self, max_psi_percent: float | None = 20.0) -> MemoryWatch:
        return MemoryWatch(
            100.0,
            64.0,
            max_psi_percent,
            resident=lambda: ResidentSet(self.resident_mib, 1e6),
            available=lambda: self.available_mib,
            psi=lambda: self.psi_percent,
            clock=lambda: self.clock_s,
        )


def test_nothing_is_wrong() -> None:
    machine = Machine()
    watch = machine.watch()
    for machine.clock_s in range(5):
        assert watch.exceeded() is None
    machine.available_mib = machine.psi_percent = None
    machine.clock_s = 9
    assert watch.exceeded() is None, "what cannot be read is no reason"


def test_resident_set_counts_now_not_at_its_peak() -> None:
    machine = Machine(resident_mib=99.0)
    watch = machine.watch()
    assert watch.exceeded() is None
    machine.resident_mib = 99.1
    assert watch.exceeded() == "resident set 99 MiB exceeds 99% of the budget of 100 MiB"


def test_system_is_looked_at_once_a_second() -> None:
    machine = Machine()
    watch = machine.watch()
    assert watch.exceeded() is None
    machine.available_mib = 63.0
    machine.clock_s = 0.9
    assert watch.exceeded() is None
    machine.clock_s = 1.0
    assert watch.exceeded() == "only 63 MiB of memory are left on this machine, fewer than 64"


def test_psi() -> None:
    machine = Machine(psi_percent=21.0)
    assert machine.watch().exceeded() == (
        "processes of this machine waited for memory 21 % of the last 10 s, more than 20 %"
    )
    assert machine.watch(None).exceeded() is None
    found = memory_psi_percent()
    assert found is None or 0.0 <= found <= 100.0


def test_settles_after_a_step_down() -> None:
    machine = Machine(resident_mib=200.0, psi_percent=50.0)
    watch = machine.watch()
    watch.settle()
    assert [watch.exceeded() for _ in range(SETTLING_STEPS)] == [None] * SETTLING_STEPS
    assert watch.exceeded() is not None, "the process's own memory again"
    machine.resident_mib = 1.0
    machine.clock_s = SETTLING_S - 0.1
    assert watch.exceeded() is None, "PSI still remembers what was before"
    machine.clock_s = SETTLING_S
    assert watch.exceeded() is not None
