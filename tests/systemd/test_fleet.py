"""A fleet of one board under a real systemd: server, SuperNode and worker as their units, a round, a release, the gate.

Beside what container.py names, the Debian root needs openssh-client, and the checkout .venv-fleet (`make env-fleet`).
"""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.flower import make_keys
from tests.systemd.container import CHECKOUT, DEBIAN, INSTALL, PROFILE, Container, missing, wait_for
from tests.systemd.test_service import feed, status

FLOWER = CHECKOUT / ".venv-fleet"
PACKAGES = FLOWER / Path(sysconfig.get_path("purelib")).relative_to(sysconfig.get_path("data"))
OPT = "/opt/edge-far-fleet"
ETC = "etc/edge-far/fleet"
NODE, SERVER = "edge-far-fleet-node.service", "edge-far-fleet-server.service"
PATIENT = PROFILE.replace("min_new_examples: 10", "min_new_examples: 100000")
CONFIG = f"""[superlink]
default = "fleet"
[superlink.fleet]
address = "localhost:8000"
root-certificates = "/{ETC}/ca.crt"
"""


def without() -> str | None:
    """Return why these tests cannot run here, or None."""
    if reason := missing():
        return reason
    if not PACKAGES.is_dir():
        return "needs .venv-fleet: make env-fleet"
    return None if (DEBIAN / "usr/bin/ssh-keygen").exists() else f"{DEBIAN} lacks openssh-client"


pytestmark = [pytest.mark.device, pytest.mark.slow, pytest.mark.skipif(without() is not None, reason=str(without()))]


class Fleet(Container):
    """A container with Flower's environment, whose packages come from this checkout's."""

    def shown(self) -> list[str]:
        """Return what of this machine is seen inside."""
        return [*super().shown(), f"{PACKAGES}:/fleet-packages"]

    def prepare_python(self) -> None:
        """Make both environments that the installer finds."""
        super().prepare_python()
        venv = self.root / OPT.lstrip("/")
        shutil.copytree(self.root / "opt/edge-far/venv", venv, symlinks=True)
        (venv / "bin/edge-far").unlink()
        (venv / "lib/python3.11/site-packages/bound.pth").write_text("/checkout\n/fleet-packages\n")
        for program in (FLOWER / "bin").glob("fl*"):
            text = program.read_text()
            (venv / "bin" / program.name).write_text(f"#!{OPT}/bin/python\n{text.partition(chr(10))[2]}")
            (venv / "bin" / program.name).chmod(0o755)

    def flwr(self, *words: str) -> str:
        """Run `flwr WORDS` as the server's owner."""
        return self.run("env", f"PATH={OPT}/bin:/usr/bin", "HOME=/root", "FLWR_TELEMETRY_ENABLED=0", "flwr", *words)

    def plan(self, rounds: int, release: bool) -> None:
        """Have the rounds of a plan, and wait for the run's end."""
        settings = {"bundle": "/opt/edge-far/bundle", "state": "/var/lib/edge-far-fleet-server/home"}
        settings |= {"rounds": rounds, "min-nodes": 1, "round-seconds": 120, "release": release}
        words = " ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
        told = self.flwr("run", "/checkout/deploy/fleet-app", "fleet", "--run-config", words, "--format", "json")
        run = str(json.loads(told[told.index("{") :])["run-id"])
        wait_for(lambda: "finished:" in self.flwr("ls", "fleet", "--run-id", run, "--format", "json"), 300)
        state = self.flwr("ls", "fleet", "--run-id", run, "--format", "json")
        told = self.flwr("log", run, "fleet", "--show")
        assert "finished:completed" in state, f"{state}\n{told}\n{journal(self, SERVER)}"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, installed_bundle: Path) -> Iterator[Fleet]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    make_keys(keys, 0)
    booted = Fleet(tmp_path_factory.mktemp("container"), installed_bundle)
    try:
        booted.write("/etc/hosts", "127.0.0.1 localhost\n")
        booted.write("/profile.yaml", PATIENT)
        booted.write("/root/.flwr/config.toml", CONFIG)
        for name in ("ca.crt", "server.crt", "server.key"):
            booted.write(f"/{ETC}/{name}", (keys / name).read_text())
        booted.write(f"/etc/systemd/system/{SERVER}", (CHECKOUT / "deploy" / SERVER).read_text())
        booted.run("systemctl", "daemon-reload")
        booted.run("systemctl", "start", SERVER)
        booted.run(*INSTALL, "--fleet", "localhost:8000")
        booted.run("systemctl", "stop", "edge-far.timer")
        yield booted
    finally:
        booted.close()


def journal(container: Fleet, unit: str) -> str:
    return container.run("journalctl", "--quiet", "--no-pager", "--output=cat", f"--unit={unit}", check=False)


def test_a_round_and_a_release_behind_the_walls_of_the_units(container: Fleet, tmp_path: Path) -> None:
    feed(container, 600, 1, tmp_path)
    container.run("systemctl", "start", "edge-far.service")
    wait_for(lambda: container.show("ActiveState") == "inactive", 60)
    assert status(container)["examples"]["examples"] > 500  # type: ignore[index]
    key = (container.root / ETC / "node.key").stat()
    assert (key.st_mode & 0o777, key.st_uid) == (0o600, 0)
    assert container.show("ActiveState", SERVER) == "active", journal(container, SERVER)
    # A board that the server does not know is turned away; its unit tries again until it is.
    container.flwr("supernode", "register", f"/{ETC}/node.key.pub", "fleet")
    wait_for(lambda: "SuperNode ID" in journal(container, NODE), 180)
    container.plan(4, release=False)
    rounds = container.root / "var/lib/private/edge-far-fleet-server/home/rounds"
    (node,) = json.loads((rounds / "000001" / "round.json").read_text())["nodes"].values()
    assert node["outcome"] == "trained" and node["figures"]["examples"] > 300, journal(
        container, "edge-far-fleet-work.service"
    )
    assert container.show("Result", "edge-far-fleet-work.service") == "success"
    # Who speaks with the network is another user than who sees the examples; neither is root.
    users = {container.show("User", unit) for unit in (NODE, "edge-far-fleet-work.service")}
    assert users == {"edge-far-fleet", "edge-far"}
    answer = (container.root / "var/spool/edge-far-fleet/answer.safetensors").stat()
    assert answer.st_mode & 0o007 == 0 and answer.st_uid != 0
    # The release: the worker asks the service, whose gate decides.
    container.plan(4, release=True)
    wait_for(lambda: (status(container)["last_cycle"] or {}).get("outcome"), 120)  # type: ignore[attr-defined]
    found = status(container)
    assert found["last_cycle"]["outcome"] in ("released", "rejected")  # type: ignore[index]
    assert not (container.root / "var/lib/private/edge-far/offer").exists()
    if found["last_cycle"]["outcome"] == "released":  # type: ignore[index]
        assert found["model"]["kind"] == "fleet"  # type: ignore[index]


def test_all_that_flower_started_ends_with_its_unit(container: Fleet) -> None:
    for unit in (NODE, SERVER):
        container.run("systemctl", "stop", unit)
        assert container.show("ActiveState", unit) in ("inactive", "failed")
    pattern = "f[l]ower|f[l]wr"  # does not match those who look for it
    assert container.run("sh", "-c", f"grep -lzE '{pattern}' /proc/[0-9]*/cmdline 2>/dev/null", check=False) == ""


def test_removing_leaves_nothing(container: Fleet) -> None:
    container.run("rm", f"/etc/systemd/system/{SERVER}")
    container.run("sh", "/checkout/deploy/install.sh", "--uninstall", "--purge")
    found = container.run("find", "/etc", "/opt", "/var/lib", "/var/spool", "/usr/local", "-name", "*edge-far*")
    assert [place for place in found.split() if "server" not in place] == []
