"""The path of somebody who has a wheel, the sdist and a bundle, in a fresh Debian 12 with a systemd of its own, timed.

    sudo .venv-device/bin/python scripts/strangers_path.py
    sudo .venv-device/bin/python scripts/strangers_path.py --arm64      # all emulated: an hour or so

A container of systemd-nspawn boots from a fresh copy of the Debian root that tests/systemd/container.py describes, or
with --arm64 a machine of QEMU's from that of tests/systemd/emulated_board.py. What is typed there is what
docs/start/install.md, docs/start/service.md and docs/howto/use-the-model.md say, with nothing of the checkout in reach.
Packages come from a folder of wheels, as on a board without a network; the profile is one of the reader's own. No time
here is a board's: the container has this machine's processor, the other one none. Prints the seconds of each step; exit
code 1 where a step failed, 77 where this cannot run. The bundle is the tests' tiny one, its sentences can be learnt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.daemon.field import PROFILE, Field
from tests.systemd.container import Container, missing, wait_for
from tests.systemd.emulated_board import EmulatedBoard, why_not
from tests.systemd.machine import Machine
from tests.tiny_cases import BUNDLES, REPOSITORY

# The application: one process that answers and is corrected in the morning, and answers again after the night.
APPLICATION = """import json, time
from pathlib import Path
from edge_far import Model

model = Model("/run/edgefar/model/current")
for turn in ("morning", "evening"):
    while not Path(turn).exists():
        time.sleep(0.1)
    rows = []
    for line in Path("day.jsonl").read_text().splitlines():
        record = json.loads(line)
        answer = model.predict(record["text"])
        model.feedback(answer.id, record["label"])
        rows.append((answer.label == record["label"], answer.release))
    Path(f"{turn}.tmp").write_text(json.dumps(rows))
    Path(f"{turn}.tmp").rename(f"{turn}.json")
"""
USER, HOME = "ada", "/home/ada"
DAY = 1000  # sentences that the application is asked


# pip's words for the wheels of another machine, and of its Python; 36 is the minor version of bookworm's glibc.
ARM64_WHEELS = [
    "--only-binary=:all:",
    "--implementation=cp",
    "--python-version=3.11",
    "--platform=manylinux2014_aarch64",
]
ARM64_WHEELS += [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 37)]


class Fresh(Container):
    """A container that knows nothing of the checkout: packages and what a workstation hands over come from folders."""

    def __init__(self, folder: Path, bundle: Path, files: dict[str, Path]) -> None:
        self.files = files
        super().__init__(folder, bundle)

    def prepare_python(self) -> None:
        """Leave Python as the distribution made it."""

    def shown(self) -> list[str]:
        """Return those folders alone."""
        return [f"{outside}:{inside}" for inside, outside in self.files.items()]


class Steps:
    """What is typed, and the seconds that it takes."""

    def __init__(self, container: Machine) -> None:
        self.container = container

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Tell the seconds of a step."""
        began = time.monotonic()
        yield
        print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)

    def type(self, line: str, *, root: bool = False) -> str:
        """Type a line in the user's home directory; return what it prints."""
        who = () if root else ("runuser", "-u", USER, "--")
        settings = f"PATH=/usr/local/bin:/usr/sbin:/usr/bin HOME={HOME} PIP_NO_INDEX=1 PIP_FIND_LINKS=/media/wheels"
        script = f"cd {HOME}; export {settings}; {line}"
        return self.container.run(*who, "sh", "-euc", script)


def fetch(folder: Path, wheel: Path, *, arm64: bool) -> None:
    """Fill a folder with the wheels that the board's Python wants."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--dest", folder]
    other = ARM64_WHEELS if arm64 else []
    subprocess.run([*pip, *other, f"{wheel}[device]"], check=True, stderr=subprocess.DEVNULL)


def sentences(folder: Path) -> str:
    """Return a day's sentences with their labels, which the tests' tiny model can learn."""
    folder.mkdir()
    Field(folder, folder).feed(DAY, seed=1)
    (found,) = (folder / "state" / "spool").glob("*.jsonl")
    return found.read_text()


def answers(container: Machine, steps: Steps, turn: str) -> tuple[float, str]:
    """Let the application answer and be corrected; return the share it had right, and the release that answered."""
    steps.type(f"touch {turn}")
    told = f"{HOME}/{turn}.json"
    wait_for(lambda: container.read(told) is not None, 300)
    rows = json.loads(container.read(told) or "")
    (release,) = {release for _, release in rows}
    return sum(right for right, _ in rows) / len(rows), release


def walk(container: Machine, steps: Steps) -> bool:
    """Type all of it; return whether the application uses the release of its own corrections at the end."""
    with steps.timed("install.md: venv, pip install of the wheel with [device]"):
        steps.type("python3 -m venv venv; venv/bin/pip install --quiet $(echo edge_far-*.whl)[device]")
    with steps.timed("install.md: edge-far --version, doctor"):
        print(steps.type("venv/bin/edge-far --version; venv/bin/edge-far doctor | head -n 3 || true"))
    with steps.timed("first run: train, predict"):
        steps.type("venv/bin/edge-far train bundle --train data.jsonl --out run --profile board.yaml --epochs 1")
        print(steps.type("venv/bin/edge-far predict bundle --run run 'turn the lights on'"))
    with steps.timed("service.md: deploy/install.sh, from the sdist, with the wheel"):
        steps.type("tar -xf edge_far-*.tar.gz && mv edge_far-*/ edge-far")
        command = "edge-far/deploy/install.sh --profile board.yaml --bundle bundle --package ./edge_far-*.whl"
        print(steps.type(f"sh {command} 2>&1 | tail -n 1; usermod --append --groups edge-far-spool {USER}", root=True))
    with steps.timed("service.md: systemctl start edge-far, the first look"):
        steps.type("systemctl start edge-far", root=True)
        wait_for(lambda: container.show("ActiveState") == "inactive", 120)
    with steps.timed(f"use-the-model.md: the application asks {DAY} times and corrects each answer"):
        steps.type("venv/bin/python application.py >application.log 2>&1 &")
        before, factory = answers(container, steps, "morning")
    with steps.timed("the night: edge-far adapt, and the cycle to its end"):
        print(steps.type("edge-far adapt --wait-seconds 120 2>&1 || true", root=True))
        wait_for(lambda: container.show("ActiveState") in ("inactive", "failed"), 600)
        print(steps.type("edge-far status | head -n 3", root=True))
    with steps.timed("the same process answers again"):
        after, release = answers(container, steps, "evening")
    print(f"right {before:.3f} with {factory}, {after:.3f} with {release}")
    return release != factory and after > before


def handed_over(folder: Path, *, arm64: bool) -> dict[str, Path]:
    """Return what a workstation hands over, as folders by the place where the board sees them."""
    dist, ours, wheels = folder / "dist", folder / "ours", folder / "wheels"
    build = [sys.executable, REPOSITORY / "scripts" / "packages.py", "--build", dist]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = dist.glob("*.whl")
    fetch(wheels, wheel, arm64=arm64)
    shutil.copytree(dist, ours)
    shutil.copytree(BUNDLES / "tiny-fp32", ours / "bundle")
    shutil.copy(BUNDLES / "tiny.jsonl", ours / "data.jsonl")
    for file, text in {
        "board.yaml": PROFILE,
        "application.py": APPLICATION,
        "day.jsonl": sentences(folder / "field"),
    }.items():
        (ours / file).write_text(text)
    return {"/media/wheels": wheels, "/media/ours": ours}


def main() -> int:
    """Prepare what a workstation would hand over, boot, walk."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arm64", action="store_true", help="on an emulated machine")
    arm64 = parser.parse_args().arm64
    if (why := why_not() if arm64 else missing()) is not None:
        print(f"skipped: {why}")
        return 77
    with tempfile.TemporaryDirectory(prefix="edge-far-path-") as name:
        folder = Path(name)
        files = handed_over(folder, arm64=arm64)
        began = time.monotonic()
        container: Machine = EmulatedBoard(folder, files) if arm64 else Fresh(folder, BUNDLES / "tiny-fp32", files)
        try:
            print(f"{time.monotonic() - began:7.1f} s  a fresh Debian boots", flush=True)
            container.run("useradd", "--create-home", USER)
            container.run("cp", "-rT", "/media/ours", HOME)
            container.run("chown", "--recursive", f"{USER}:", HOME)
            good = walk(container, Steps(container))
        finally:
            container.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
