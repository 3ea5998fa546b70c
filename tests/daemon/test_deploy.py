"""The units and the installer: systemd accepts them, exposure stays low, installing twice changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_far.bridges.mqtt_settings import load_settings
from tests.doctor.boards import BOARDS, plant

DEPLOY = Path(__file__).parents[2] / "deploy"
BRIDGES = ("edge-far-mqtt.service", "edge-far-wyoming.service")
FLOWER = ("edge-far-fleet-node.service", "edge-far-fleet-server.service")
FLEET = (*FLOWER, "edge-far-fleet-work.service", "edge-far-fleet-work.path")
UNITS = ("edge-far.service", "edge-far.timer", "edge-far.path", "run-edgefar.mount", *BRIDGES, *FLEET)
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not there")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copies of the units whose program exists, so that systemd does not complain of that."""
    program = tmp_path / "edge-far"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in UNITS:
        text = re.sub(r"/opt/edge-far(/venv|-fleet)/bin/[a-z-]+", str(program), (DEPLOY / name).read_text())
        (tmp_path / name).write_text(text)
    return tmp_path


def systemd_analyze(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
def test_verify_prints_nothing(units: Path) -> None:
    names = [f"./{name}" for name in UNITS]
    assert systemd_analyze("verify", *names, cwd=units) == ""


@needs_systemd
@pytest.mark.parametrize("drop_in", [None, "jetson.conf"])
def test_exposure(units: Path, drop_in: str | None) -> None:
    if drop_in:
        target = units / "edge-far.service"
        target.write_text(target.read_text() + (DEPLOY / drop_in).read_text())
    assert exposure("edge-far.service", units) <= 1.0


@needs_systemd
@pytest.mark.parametrize("bridge", [*BRIDGES, *FLOWER])
def test_exposure_of_a_bridge_which_needs_a_network(units: Path, bridge: str) -> None:
    assert exposure(bridge, units) <= 1.2


@needs_systemd
def test_exposure_of_a_fleets_worker_is_that_of_the_service(units: Path) -> None:
    assert exposure("edge-far-fleet-work.service", units) <= 1.0


@pytest.mark.parametrize("name", FLOWER)
def test_all_that_flower_starts_ends_with_it_and_nothing_is_told_to_its_maker(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert "\nKillMode=control-group\n" in text and "\nEnvironment=FLWR_TELEMETRY_ENABLED=0\n" in text
    assert "\nEnvironment=PATH=/opt/edge-far-fleet/bin:/usr/bin:/bin\n" in text  # its own helpers, by name
    assert "--insecure" not in text


def exposure(service: str, units: Path) -> float:
    """Return how open a service is, by systemd's own measure: 0 is closed, 10 is open."""
    shown = systemd_analyze("security", "--offline=true", f"./{service}", cwd=units)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", shown)
    assert found, shown.splitlines()[-1]
    return float(found[1])


@pytest.mark.parametrize("service", ["edge-far.service", *BRIDGES, *FLOWER, "edge-far-fleet-work.service"])
def test_every_setting_of_a_service_is_explained(service: str) -> None:
    """No run of settings without a comment above it that says why."""
    explained = False
    for line in (DEPLOY / service).read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif not line or line.startswith("["):
            explained = line == "[Unit]" or explained
        else:
            assert explained, line


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """All files but the virtual environment's, with modification time and content."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_file() and not name.startswith("opt/edge-far/venv"):
            found[name] = (path.stat().st_mtime_ns, path.read_bytes())
    return found


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A staging directory with a virtual environment that pip need not fill."""
    root = tmp_path / "root"
    binaries = root / "opt/edge-far/venv/bin"
    binaries.mkdir(parents=True)
    source = Path(__file__).parents[2]
    script = f'#!/bin/sh\n[ "$2" = pip ] && exit 0\nPYTHONPATH={source} exec {sys.executable} "$@"\n'
    (binaries / "python").write_text(script)
    (binaries / "python").chmod(0o755)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    return root


def install(stage: Path, *arguments: str, code: int = 0, script: Path = DEPLOY / "install.sh") -> str:
    done = subprocess.run(
        ["sh", str(script), "--stage", str(stage), *arguments],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def test_install_twice_and_undo(stage: Path, tmp_path: Path) -> None:
    options = (
        "--profile",
        "rpi-zero2w-512",
        "--bundle",
        str(tmp_path / "bundle"),
        "--python",
        sys.executable,
    )
    install(stage, *options)
    first = tree(stage)
    assert set(first) == {
        "etc/edge-far/edge-far.env",
        "etc/systemd/system/edge-far.path",
        "etc/systemd/system/edge-far.service",
        "etc/systemd/system/edge-far.service.d/10-profile.conf",
        "etc/systemd/system/edge-far.timer",
        "etc/systemd/system/run-edgefar.mount",
        "etc/sysusers.d/edge-far.conf",
        "etc/tmpfiles.d/edge-far.conf",
        "opt/edge-far/bundle/manifest.json",
        "opt/edge-far/docs/howto/home-assistant.md",
        "opt/edge-far/docs/howto/look-after-the-service.md",
        "opt/edge-far/docs/howto/state-on-ssd.md",
        "opt/edge-far/docs/start/service.md",
    }
    assert b"MemoryMax=396M" in first["etc/systemd/system/edge-far.service.d/10-profile.conf"][1]
    assert install(stage, *options) == "" and tree(stage) == first
    command = stage / "usr/local/bin/edge-far"
    assert command.readlink() == Path("/opt/edge-far/venv/bin/edge-far")
    install(stage, "--uninstall")
    assert not command.is_symlink()
    assert set(tree(stage)) == {"etc/edge-far/edge-far.env", "opt/edge-far/bundle/manifest.json"}
    install(stage, "--uninstall")
    install(stage, "--uninstall", "--purge")
    assert tree(stage) == {}


def test_the_documents_that_units_name_are_installed(stage: Path, tmp_path: Path) -> None:
    install(stage, *options(tmp_path))
    units = (stage / "etc/systemd/system").glob("*.*")
    named = re.findall(r"^Documentation=(.*)$", "".join(p.read_text() for p in units if p.is_file()), re.MULTILINE)
    targets = [target for words in named for target in words.split()]
    assert targets and all(target.startswith("file:///") for target in targets)
    for target in targets:
        assert (stage / target.removeprefix("file:///")).is_file(), target


def test_a_bridge_is_installed_where_it_is_asked_for_and_keeps_its_settings(stage: Path, tmp_path: Path) -> None:
    install(stage, *options(tmp_path), "--mqtt", "--wyoming")
    settings = stage / "etc/edge-far/mqtt.yaml"
    assert settings.stat().st_mode & 0o777 == 0o600 and load_settings(settings, {}).host == "localhost"
    settings.write_text("host: broker\n")
    assert install(stage, *options(tmp_path), "--mqtt", "--wyoming") == ""
    assert settings.read_text() == "host: broker\n"
    assert all((stage / "etc/systemd/system" / bridge).is_file() for bridge in BRIDGES)
    told = dict(line.split("=", 1) for line in (DEPLOY / "wyoming.env").read_text().splitlines() if "=" in line)
    unit = (DEPLOY / "edge-far-wyoming.service").read_text()
    assert all(f"{name}={value}" in unit for name, value in told.items())
    install(stage, "--uninstall", "--purge")
    assert tree(stage) == {}


def test_deploy_alone_is_enough(stage: Path, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    install(stage, *options(tmp_path), script=tmp_path / "deploy" / "install.sh")
    assert not (stage / "opt/edge-far/docs").exists()


def test_changed_bundle_and_own_profile(stage: Path, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("memory:\n  budget_mib: 500\n")
    options = ("--profile", str(profile), "--bundle", str(tmp_path / "bundle"), "--python", sys.executable)
    install(stage, *options, "--jetson")
    (tmp_path / "bundle" / "manifest.json").write_text('{"new": 1}')
    profile.write_text("memory:\n  budget_mib: 600\n")
    install(stage, *options)
    found = tree(stage)
    assert found["opt/edge-far/bundle/manifest.json"][1] == b'{"new": 1}'
    assert found["etc/edge-far/edge-far.env"][1].startswith(b"EDGE_FAR_PROFILE=/etc/edge-far/profile.yaml\n")
    assert b"MemoryMax=696M" in found["etc/systemd/system/edge-far.service.d/10-profile.conf"][1]
    assert "etc/systemd/system/edge-far.service.d/20-jetson.conf" in found


def test_what_others_have_put_there_stays(stage: Path, tmp_path: Path) -> None:
    install(stage, *options(tmp_path))
    settings = stage / "etc/edge-far/edge-far.env"
    settings.write_text(settings.read_text() + "EDGE_FAR_REPLAY=/opt/edge-far/replay.jsonl\n")
    command = stage / "usr/local/bin/edge-far"
    command.unlink()
    command.write_text("somebody else's")
    install(stage, "--profile", "rpi5-4gb", *options(tmp_path)[2:])
    assert settings.read_text() == (
        "EDGE_FAR_PROFILE=rpi5-4gb\nEDGE_FAR_BUNDLE=/opt/edge-far/bundle\nEDGE_FAR_REPLAY=/opt/edge-far/replay.jsonl\n"
    )
    install(stage, "--uninstall", "--purge")
    assert set(tree(stage)) == {"usr/local/bin/edge-far"}


def test_the_profile_of_the_board(stage: Path, tmp_path: Path) -> None:
    names = ("proc/device-tree/model", "proc/meminfo", "proc/cpuinfo")
    plant({name: BOARDS["rpi5-8gb"][name] for name in names}, stage)
    install(stage, "--profile", "auto", *options(tmp_path)[2:])
    assert (stage / "etc/edge-far/edge-far.env").read_text().startswith("EDGE_FAR_PROFILE=rpi5-8gb\n")


def options(folder: Path) -> tuple[str, ...]:
    return ("--profile", "rpi4-2gb", "--bundle", str(folder / "bundle"), "--python", sys.executable)


@pytest.mark.parametrize("place", ["var/lib/edge-far", "var/lib/private/edge-far", "var/spool/edge-far"])
@pytest.mark.parametrize("target", ["ssd", "nowhere"])
def test_a_link_of_somebody_else_is_told_and_nothing_installed(
    stage: Path, tmp_path: Path, place: str, target: str
) -> None:
    (stage / "ssd").mkdir()
    link = stage / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(stage / target)
    (told,) = install(stage, *options(tmp_path), code=73).splitlines()
    right = place.replace("lib/edge", "lib/private/edge")
    assert f"{link} is a link to {stage / target}" in told
    assert f"remove the link and mount that directory at {stage / right} (see docs/howto/state-on-ssd.md)" in told
    assert (DEPLOY.parent / "docs/howto/state-on-ssd.md").exists()
    assert tree(stage) == {}


def test_a_state_directory_of_runs_by_hand_is_moved(stage: Path, tmp_path: Path) -> None:
    old, new = stage / "var/lib/edge-far", stage / "var/lib/private/edge-far"
    old.mkdir(parents=True)
    (old / "store.sqlite3").write_text("examples")
    new.mkdir(parents=True)  # as systemd-tmpfiles leaves it
    assert f"moved {old} to {new}" in install(stage, *options(tmp_path))
    assert (new / "store.sqlite3").read_text() == "examples" and not old.exists()
    assert new.parent.stat().st_mode & 0o777 == 0o700
    assert install(stage, *options(tmp_path)) == ""


def test_two_state_directories_are_not_mixed(stage: Path, tmp_path: Path) -> None:
    for place in ("var/lib/edge-far", "var/lib/private/edge-far"):
        (stage / place).mkdir(parents=True)
        (stage / place / "store.sqlite3").write_text(place)
    before = tree(stage)
    assert "move the other away" in install(stage, *options(tmp_path), code=73)
    assert tree(stage) == before


def test_a_link_that_means_the_same_gives_way(stage: Path, tmp_path: Path) -> None:
    """systemd takes the relative link only, and makes it itself."""
    link = stage / "var/lib/edge-far"
    link.parent.mkdir(parents=True)
    link.symlink_to("/var/lib/private/edge-far")
    install(stage, *options(tmp_path))
    assert not link.is_symlink()
    link.symlink_to("private/edge-far")
    install(stage, *options(tmp_path))
    assert link.readlink() == Path("private/edge-far")
    install(stage, "--uninstall", "--purge")
    assert not link.is_symlink()


def test_purging_leaves_the_link_of_somebody_else_and_what_it_leads_to(stage: Path, tmp_path: Path) -> None:
    install(stage, *options(tmp_path))
    (stage / "ssd").mkdir()
    (stage / "ssd" / "mine").write_text("x")
    link = stage / "var/lib/edge-far"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(stage / "ssd")
    assert "which stays" in install(stage, "--uninstall", "--purge")
    assert set(tree(stage)) == {"ssd/mine"} and link.is_symlink()


@needs_systemd
def test_systemd_accepts_the_trial_of_the_service(units: Path) -> None:
    """The trial is the service with other commands: what systemd would complain of, nobody would see."""
    done = subprocess.run(
        ["sh", "-c", ". ./trial.sh; trial_settings"], cwd=DEPLOY, capture_output=True, text=True, check=True
    )
    service = units / "edge-far.service"
    settings = done.stdout.replace("/opt/edge-far/venv/bin/edge-far", str(units / "edge-far"))
    (units / "edge-far-trial.service").write_text(service.read_text() + settings)
    assert systemd_analyze("verify", "./edge-far-trial.service", cwd=units) == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--bundle", "x"), 64, "name a device profile"),
        (("--profile", "x"), 64, "name the factory bundle"),
        (("--profile",), 64, "--profile needs a value"),
        (("--nonsense",), 64, "unknown option '--nonsense'"),
        (("--profile", "x", "--bundle", "/nowhere"), 66, "/nowhere: is not a bundle"),
        (("--profile", "x", "--bundle", "BUNDLE", "--python", "/no/python"), 69, "/no/python: not found"),
        (("--profile", "rpi", "--bundle", "BUNDLE"), 78, "is not a built-in profile"),
        (("--profile", "auto", "--bundle", "BUNDLE"), 78, "name a profile instead of auto"),
    ],
)
def test_bad_arguments(stage: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    given = [str(tmp_path / "bundle") if word == "BUNDLE" else word for word in arguments]
    if code == 78:
        given += ["--python", sys.executable]
    assert message in install(stage, *given, code=code)
