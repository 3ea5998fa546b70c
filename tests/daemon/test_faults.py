"""One round of each fault that is quick; scripts/fault_loops.py does many, and the slow ones."""

from __future__ import annotations

import random
import shutil

import pytest

from scripts.fault_loops import one_round, problem_of_next_cycle
from scripts.kill_daemon import EASY, hand_over_file
from tests.daemon.faults import FAULTS, Device
from tests.daemon.field import Field
from tests.daemon.invariants import Ledger

pytestmark = pytest.mark.device
# A million lines take minutes; damaged releases and the trainer that is killed for memory have tests of their own.
QUICK = sorted(set(FAULTS) - {"1 M lines", "current release damaged", "trainer killed for memory"})


@pytest.mark.parametrize("name", QUICK)
def test_a_device_gets_over_it(field: Field, name: str) -> None:
    if name == "clock a year back" and shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    field.profile.write_text(EASY)
    device = Device(field, Ledger(), random.Random(0))
    field.once(status=75)
    hand_over_file(field, device.ledger, device.chance, 400)
    field.once()
    device.hand_over(8)
    assert one_round(name, device) is None
    assert problem_of_next_cycle(device) is None
    assert device.peak_mib < 40
