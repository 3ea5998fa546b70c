"""One round over Flower's own processes: two boards train, one of them beside a waiting daemon, and one lies.

Needs Flower's environment besides the device's: `make env-fleet`. The whole trial is scripts/fleet_trial.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fleet.trial import Trial
from tests.tiny_cases import REPOSITORY

pytestmark = pytest.mark.device
FLEET = REPOSITORY / ".venv-fleet"


def test_a_round_is_the_mean_of_those_who_trained_whatever_another_one_sends(
    tmp_path: Path, test_bundles: Path
) -> None:
    if not (FLEET / "bin" / "flower-superlink").exists():
        pytest.skip("needs .venv-fleet: make env-fleet")
    if not (shutil.which("openssl") and shutil.which("ssh-keygen")):
        pytest.skip("openssl or ssh-keygen is not there")
    trial = Trial(tmp_path, FLEET, test_bundles, {"attic": 120, "barn": 60, "dock": 40})
    try:
        trial.set_up(liars={"dock": "np.nan"})
        trial.seats[0].start_daemon()
        trial.run(1, {"attic": "trained", "barn": "trained", "dock": "refused numbers"})
    finally:
        trial.end()
