"""`edge-far adapt` beside a daemon that looks every day: a cycle at once, or why not; and where no daemon runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.field import Field, environment, wait_for

pytestmark = pytest.mark.device


@pytest.fixture
def field(tmp_path: Path, test_bundles: Path) -> Field:
    return Field(tmp_path, test_bundles / "tiny-fp32")


@pytest.fixture
def daemon(field: Field) -> Iterator[subprocess.Popen[str]]:
    """A daemon that has looked once, and would look again after a day."""
    process = subprocess.Popen(
        field.command("daemon", "--interval-minutes", "1440"),
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True, "env": environment()},
    )
    wait_for(lambda: (field.state / "model" / "current").exists() and (field.state / "status.json").exists())
    yield process
    process.terminate()
    process.wait(15)


def test_it_has_to_wait_and_says_why_until_there_is_enough(field: Field, daemon: subprocess.Popen[str]) -> None:
    told = field.run("adapt", status=75)
    assert told["asked"] and told["cycle"] is None and "0 new examples, 10 needed" in told["deferred"]
    assert {c["name"] for c in told["conditions"] if not c["ok"]} == {"new examples", "held-out examples"}
    field.feed(600)  # the look that is asked for reads the spool first
    told = field.run("adapt")
    assert (told["asked"], told["cycle"], told["deferred"]) == (True, 1, None)
    wait_for(lambda: field.current().startswith("000001-"))


def test_without_a_service_it_says_so_and_leaves_nothing_behind(field: Field) -> None:
    field.once(status=75)
    told = field.run("adapt", status=69)["error"]
    assert told["message"] == "no service runs here that could adapt" and "systemctl start edge-far" in told["hint"]
    assert not (field.state / "spool" / "adapt-now").exists()
    assert field.run("adapt", "--state", field.root / "nowhere", status=66)["error"]["kind"] == "InputMissing"
