"""The installed service under a real systemd: it starts, is watched, is limited, is stopped, and the timer fires."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.field import Field
from tests.systemd.container import INSTALL, PROFILE, Container, missing, wait_for

pytestmark = [pytest.mark.device, pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

SPOOL = "var/spool/edge-far"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, installed_bundle: Path) -> Iterator[Container]:
    booted = Container(tmp_path_factory.mktemp("container"), installed_bundle)
    try:
        booted.write("/profile.yaml", PROFILE)
        booted.run(*INSTALL)
        booted.run(*INSTALL)  # a second time changes nothing
        booted.run("systemctl", "stop", "edge-far.timer")
        yield booted
    finally:
        booted.close()


@pytest.fixture
def device(container: Container, tmp_path: Path) -> Iterator[Container]:
    """Return the container with the service stopped and no drop-in."""
    yield container
    container.run("systemctl", "stop", "edge-far.service", check=False)
    container.drop_in("edge-far.service", "")
    container.run("systemctl", "reset-failed", "edge-far.service", check=False)


def feed(container: Container, count: int, seed: int, folder: Path) -> None:
    """Let an application that is in the spool's group hand examples over."""
    field = Field(folder / f"field-{seed}", folder) if (folder / f"field-{seed}").mkdir() is None else None
    assert field is not None
    field.feed(count, seed=seed)
    (source,) = (field.state / "spool").glob("*.jsonl")
    target = container.root / SPOOL / f".{seed}.tmp"
    target.write_bytes(source.read_bytes())
    target.chmod(0o640)
    target.rename(container.root / SPOOL / f"{seed}.jsonl")


def status(container: Container) -> dict[str, object]:
    text = container.run("/opt/edge-far/venv/bin/edge-far", "status", "--json", "--state", "/var/lib/edge-far")
    found: dict[str, object] = json.loads(text)
    return found


def start_training(container: Container) -> None:
    container.run("systemctl", "start", "edge-far.service")  # returns at READY=1
    assert container.show("ActiveState") in ("active", "deactivating", "inactive")
    wait_for(lambda: "training: step" in container.show("StatusText"), 60)


def test_fresh_device_defers_and_that_is_no_failure(device: Container) -> None:
    device.run("systemctl", "start", "edge-far.service")
    wait_for(lambda: device.show("ActiveState") == "inactive", 60)
    assert (device.show("Result"), device.show("ExecMainStatus")) == ("success", "75")
    assert status(device)["state"] == "fresh"
    assert device.run("cat", "/run/edgefar/model/current/labels.json").startswith("[")
    device.run("setpriv", "--reuid=nobody", "--clear-groups", "cat", "/run/edgefar/model/current/labels.json")
    assert not device.run("setpriv", "--reuid=nobody", "--clear-groups", "ls", "/run/edgefar", check=False)


def test_asking_for_a_cycle_starts_the_service_for_a_look(device: Container) -> None:
    before = device.show("InvocationID")
    text = device.run("/opt/edge-far/venv/bin/edge-far", "adapt", "--json", "--wait-seconds", "60", check=False)
    told = json.loads(text)
    assert told["asked"] and told["cycle"] is None and "new examples" in told["deferred"]
    assert device.show("InvocationID") != before
    wait_for(lambda: device.show("ActiveState") == "inactive", 60)
    assert (device.show("Result"), device.show("ExecMainStatus")) == ("success", "75")
    assert not (device.root / SPOOL / "adapt-now").exists()


def test_stop_is_clean_and_the_next_start_goes_on(device: Container, tmp_path: Path) -> None:
    feed(device, 12000, 1, tmp_path)
    start_training(device)
    began = time.monotonic()
    device.run("systemctl", "stop", "edge-far.service")
    assert time.monotonic() - began < 12
    assert (device.show("Result"), device.show("ExecMainStatus")) == ("success", "75")
    assert status(device)["cycle_under_way"]
    device.run("systemctl", "start", "edge-far.service")
    wait_for(lambda: device.show("ActiveState") == "inactive", 240)
    assert device.show("ExecMainStatus") == "0"
    assert status(device)["state"] == "healthy"


def test_the_timer_fires(device: Container) -> None:
    before = device.show("InvocationID")
    device.drop_in("edge-far.timer", "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/2\nRandomizedDelaySec=0\nAccuracySec=1s\n")
    device.run("systemctl", "start", "edge-far.timer")
    wait_for(lambda: device.show("InvocationID") not in ("", before), 60)
    device.run("systemctl", "stop", "edge-far.timer")
    device.drop_in("edge-far.timer", "")
    wait_for(lambda: device.show("ActiveState") == "inactive", 60)


def test_a_stalled_trainer_is_killed_before_the_watchdog_fires(device: Container, tmp_path: Path) -> None:
    device.drop_in("edge-far.service", "[Service]\nWatchdogSec=15s\n")
    feed(device, 12000, 2, tmp_path)
    start_training(device)
    device.run("sh", "-c", f"kill -STOP {device.trainer()}")
    wait_for(lambda: device.show("ActiveState") == "inactive", 240)
    assert device.show("Result") == "success"
    last = status(device)["last_cycle"]
    assert isinstance(last, dict) and "made no progress and was killed" in last["deaths"][0]


def test_the_watchdog_kills_a_stalled_daemon_and_its_trainer(device: Container, tmp_path: Path) -> None:
    device.drop_in("edge-far.service", "[Service]\nWatchdogSec=15s\n")
    feed(device, 12000, 3, tmp_path)
    start_training(device)
    device.run("sh", "-c", f"kill -STOP {device.show('MainPID')}")
    wait_for(lambda: device.show("ActiveState") == "failed", 60)
    assert device.show("Result") == "watchdog"
    assert device.trainer() is None
    device.drop_in("edge-far.service", "")
    device.run("systemctl", "start", "edge-far.service")
    wait_for(lambda: device.show("ActiveState") == "inactive", 240)
    assert device.show("ExecMainStatus") == "0"


def test_a_memory_limit_below_the_budget_is_seen(device: Container, tmp_path: Path) -> None:
    if not device.limits_memory():
        pytest.skip("this machine gives the container no memory controller")
    device.drop_in("edge-far.service", "[Service]\nMemoryMax=48M\n")
    feed(device, 3000, 4, tmp_path)
    device.run("systemctl", "start", "edge-far.service")
    wait_for(lambda: device.show("ActiveState") == "inactive", 120)
    # The conditions see a limit below the budget and do not even start.
    assert device.show("ExecMainStatus") == "75"
    assert "control group allows 48 MiB" in str(status(device)["summary"])


def test_the_memory_limit_holds_and_the_cycle_goes_on(device: Container, tmp_path: Path) -> None:
    if not device.limits_memory():
        pytest.skip("this machine gives the container no memory controller")
    device.write("/etc/edge-far/profile.yaml", PROFILE.replace("400", "150"))
    device.drop_in("edge-far.service", "[Service]\nMemoryMax=160M\n")
    device.write("/etc/greedy", "")
    feed(device, 3000, 5, tmp_path)
    device.run("systemctl", "start", "edge-far.service")
    wait_for(lambda: device.show("ActiveState") == "inactive", 240)
    assert (device.show("Result"), device.show("ExecMainStatus")) == ("success", "0")
    last = status(device)["last_cycle"]
    assert isinstance(last, dict) and "was killed for lack of memory" in last["deaths"][0]
    assert (last["attempt"], last["outcome"]) == (2, "released")
    assert device.run("systemctl", "is-active", "dbus.service", "systemd-journald.service").split() == ["active"] * 2

    (device.root / "etc/greedy").unlink()
    feed(device, 3000, 6, tmp_path)
    device.run("systemctl", "start", "edge-far.service")
    wait_for(lambda: device.show("ActiveState") == "inactive", 240)
    following = status(device)["last_cycle"]
    assert isinstance(following, dict) and following["id"] > last["id"] and not following["deaths"]
    assert following["outcome"] in ("released", "rejected")


def test_uninstalling_leaves_nothing(device: Container) -> None:
    """The last one: afterwards nothing is installed any more."""
    device.run("systemctl", "start", "edge-far.timer", "edge-far.service")
    device.run("rm", "/etc/systemd/system/edge-far.service.d/90-test.conf")
    device.run("sh", "/checkout/deploy/install.sh", "--uninstall", "--purge")
    device.run("sh", "/checkout/deploy/install.sh", "--uninstall", "--purge")  # undone twice is undone
    places = "/etc/systemd /etc/sysusers.d /etc/tmpfiles.d /opt /usr/local /var/lib /var/spool /run/systemd/units"
    found = device.run("sh", "-c", f"find {places} -name '*edge-far*' -o -name '*edgefar*'")
    assert found == ""
    assert "edge-far-spool" not in device.run("cat", "/etc/group")
    assert "/run/edgefar" not in device.run("cat", "/proc/self/mountinfo")
    assert device.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "edge-far*", "run-edgefar*") == ""
    device.write("/etc/systemd/system/edge-far.service.d/90-test.conf", "")  # what the fixture takes away
