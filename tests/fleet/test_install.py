"""`deploy/install.sh --fleet`: what lies where, the board's key, what is refused, and that nothing stays behind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.daemon.test_deploy import DEPLOY, install, options, stage, tree

__all__ = ["stage"]  # the fixture

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not there")
SERVER = ("--fleet", "fleet.example:8000")
UNITS = ("edge-far-fleet-node.service", "edge-far-fleet-work.service", "edge-far-fleet-work.path")


@pytest.fixture
def ca(stage: Path, tmp_path: Path) -> Path:
    """Return a certificate; pip need not fill Flower's environment either."""
    shutil.copytree(stage / "opt/edge-far/venv", stage / "opt/edge-far-fleet")
    file = tmp_path / "ca.crt"
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    return file


def words(stage: Path) -> set[str]:
    """Return what is installed, but for environments."""
    return {name for name in tree(stage) if not name.startswith("opt/edge-far-fleet/")}


def test_a_board_takes_part_and_goes_on_doing_so(stage: Path, tmp_path: Path, ca: Path) -> None:
    told = install(stage, *options(tmp_path), *SERVER, "--fleet-ca", str(ca))
    key = stage / "etc/edge-far/fleet/node.key"
    assert key.stat().st_mode & 0o777 == 0o600 and key.parent.stat().st_mode & 0o777 == 0o700
    assert key.with_suffix(".key.pub").read_text().strip() in told and "PRIVATE" not in told
    units = stage / "etc/systemd/system"
    assert all((units / unit).is_file() for unit in UNITS)
    limits = [(units / f"{name}.service.d/10-profile.conf").read_text() for name in ("edge-far", "edge-far-fleet-work")]
    assert limits[0] == limits[1] and "MemoryMax=" in limits[0]
    # The unit finds what was installed: its settings, its key, the certificate, its page.
    text = "".join((units / unit).read_text() for unit in UNITS)
    for place in re.findall(r"/etc/edge-far/[\w./-]+|/opt/edge-far/docs/[\w./-]+", text):
        assert (stage / place.lstrip("/")).is_file(), place
    assert (stage / "etc/edge-far/fleet/node.env").read_text() == "EDGE_FAR_FLEET_SERVER=fleet.example:8000\n"
    first = tree(stage)
    assert install(stage, *options(tmp_path)) == "" and tree(stage) == first  # asked for once is enough
    told = install(stage, *options(tmp_path), "--fleet", "[fd00::7]:9000")
    assert "node.env" in told and "made this board's key" not in told
    install(stage, "--uninstall")
    kept = {"node.key", "node.key.pub", "node.env", "ca.crt"}
    assert {name for name in tree(stage) if "fleet" in name} == {f"etc/edge-far/fleet/{name}" for name in kept}
    install(stage, "--uninstall", "--purge")
    assert tree(stage) == {}


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (("--fleet", "fleet.example", "--fleet-ca", "CA"), 64, "is not HOST:PORT"),
        (("--fleet", "https://fleet.example:8000", "--fleet-ca", "CA"), 64, "is not HOST:PORT"),
        (("--fleet", "a b:8000", "--fleet-ca", "CA"), 64, "is not HOST:PORT"),
        (("--fleet", ":8000", "--fleet-ca", "CA"), 64, "is not HOST:PORT"),
        (SERVER, 64, "name the certificate of the fleet's authority with --fleet-ca"),
        (("--fleet-ca", "CA"), 64, "--fleet-ca is of --fleet"),
        ((*SERVER, "--fleet-ca", "/nowhere"), 66, "/nowhere: not found"),
        ((*SERVER, "--fleet-ca", "KEY"), 65, "holds a private key"),
        ((*SERVER, "--fleet-ca", str(DEPLOY / "install.sh")), 65, "is not a certificate"),
    ],
)
def test_what_cannot_be_is_told_in_a_line_and_nothing_is_installed(
    stage: Path, tmp_path: Path, ca: Path, more: tuple[str, ...], code: int, told: str
) -> None:
    (tmp_path / "ca.key").write_text("-----BEGIN EC PRIVATE KEY-----\n")
    given = [{"CA": str(ca), "KEY": str(tmp_path / "ca.key")}.get(word, word) for word in more]
    (line,) = install(stage, *options(tmp_path), *given, code=code).splitlines()
    assert told in line and words(stage) == set()
