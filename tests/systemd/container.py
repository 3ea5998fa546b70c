"""A Debian that boots a real systemd in a container (systemd-nspawn), with edge-far installed by deploy/install.sh.

Needs root, systemd-nspawn (Debian package systemd-container) and a Debian root with systemd and Python 3.11:

    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3,python3-venv bookworm build/debian

With openssh-client and libnss-systemd in it a signed bundle runs; without, a test looks at how it is refused.
Packages of Python come from the device's environment of this checkout, bound read-only; so the installer's call of
pip is the one thing that is not exercised.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.systemd.machine import Machine

CHECKOUT = Path(__file__).resolve().parents[2]
DEBIAN = Path(os.environ.get("EDGE_FAR_DEBIAN_ROOT", CHECKOUT / "build" / "debian"))
VENV = "/opt/edge-far/venv"
PROFILE = """memory: {budget_mib: 400}
compute: {threads: 1}
pressure: {min_available_mib: 16, max_memory_psi_some_avg10_percent: null}
storage: {min_free_mib: 1}
adaptation: {learning_rate_percent: 100, min_new_examples: 10}
"""
INSTALL = ("sh", "/checkout/deploy/install.sh", "--profile", "/profile.yaml", "--bundle", "/bundle")
# Where the file /etc/greedy exists, a trainer whose plan has not been made smaller takes more and more memory.
GREEDY_TRAINER = """import os, sys, threading, time
def take():
    taken = []
    while True:
        taken.append(b"x" * (4 << 20))
        time.sleep(0.02)
if "train" in sys.orig_argv and "--micro-batch" not in sys.orig_argv and os.path.exists("/etc/greedy"):
    threading.Thread(target=take, daemon=True).start()
"""


def missing() -> str | None:
    """Return why these tests cannot run here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("systemd-nspawn") is None:
        return "needs systemd-nspawn (apt install systemd-container)"
    if not (DEBIAN / "usr/lib/systemd/systemd").exists():
        return f"needs a Debian root in {DEBIAN} (see tests/systemd/container.py)"
    return None


class Container(Machine):
    """One booted container; changes to its root are thrown away with it.

    With `unprivileged`, its root is an ordinary user outside (a user namespace).
    """

    def __init__(self, folder: Path, bundle: Path, *, unprivileged: bool = False) -> None:
        self.root = folder / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", f"{DEBIAN}/.", self.root], check=True)
        self.prepare_python()
        shutil.copytree(bundle, self.root / "bundle")
        self.log = (folder / "console.log").open("wb")
        self._groups = make_control_groups()
        enter = "".join(f"echo $$ > {group}/cgroup.procs; " for group in self._groups)
        users = ("--private-users=pick", "--private-users-ownership=chown") if unprivileged else ()
        self.process = subprocess.Popen(
            [
                *("sh", "-c", f'{enter}exec "$@"', "sh"),
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"),
                *(f"--directory={self.root}", *(f"--bind-ro={pair}" for pair in self.shown())),
                *("--machine=edge-far-test", *users),
            ],
            **{"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log},
        )
        wait_for(lambda: self.process.poll() is not None or self.leader() is not None, 30)
        wait_for(lambda: self.run("systemctl", "is-system-running", check=False) in ("running", "degraded"), 120)
        if self._groups and not unprivileged:
            self._hand_over_memory_controller()

    def shown(self) -> list[str]:
        """Return what of this machine is seen inside, read-only: OUTSIDE:INSIDE."""
        return [f"{CHECKOUT}:/checkout", f"{sysconfig.get_paths()['purelib']}:/packages"]

    def close(self) -> None:
        """End the container."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        wait_for(lambda: all(map(remove_control_group, self._groups)), 10)

    def leader(self) -> int | None:
        """Return the container's first process, as it is numbered outside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = children.read_text().split() if children.exists() else []
        return int(found[-1]) if found else None

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, whatever becomes of it."""
        return subprocess.run(
            ["nsenter", "--all", "--target", str(self.leader()), "env", "-i", "PATH=/usr/sbin:/usr/bin", *command],
            **{"capture_output": True, "text": True, "timeout": 300, "check": False, "stdin": subprocess.DEVNULL},
        )

    def read(self, path: str) -> str | None:
        """Return the text of a file inside, None where there is none."""
        target = self.root / path.lstrip("/")
        return target.read_text() if target.exists() else None

    def write(self, path: str, text: str) -> None:
        """Write a file inside."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def drop_in(self, unit: str, text: str) -> None:
        """Replace the tests' drop-in of a unit; '' removes it."""
        self.write(f"/etc/systemd/system/{unit}.d/90-test.conf", text)
        self.run("systemctl", "daemon-reload")

    def limits_memory(self) -> bool:
        """Return whether the memory controller reaches the units in here."""
        unit = ("--quiet", "--wait", "--pipe", "--property=MemoryMax=48M")
        files = "/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/memory.max"
        version_1 = "/sys/fs/cgroup/memory$(sed -n s/^.*:memory://p /proc/self/cgroup)/memory.limit_in_bytes"
        return "50331648" in self.run(
            "systemd-run", *unit, "sh", "-c", f"cat {files} {version_1} 2>/dev/null", check=False
        )

    def allow_namespaces(self, kind: str, count: int) -> None:
        """Limit how many namespaces of a kind ('mnt', 'net', 'user') an unprivileged container may make."""
        script = f"echo {count} > /proc/sys/user/max_{kind}_namespaces"
        subprocess.run(["nsenter", "--user", "--target", str(self.leader()), "sh", "-c", script], check=True)

    def trainer(self) -> int | None:
        """Return the trainer's process, as it is numbered inside."""
        found = self.run("sh", "-c", "grep -lz '^train$' /proc/[0-9]*/cmdline 2>/dev/null | head -1", check=False)
        return int(found.split("/")[2]) if found else None

    def _hand_over_memory_controller(self) -> None:
        """Let the container's systemd use version 1 of the memory controller, which nspawn mounts read-only.

        systemd looks for controllers that it may write to when it starts, so it starts anew.
        """
        self.run("mount", "-o", "remount,bind,rw", "/sys/fs/cgroup/memory")
        self.run("systemctl", "daemon-reexec")

    def prepare_python(self) -> None:
        """Make the environment that the installer finds; it must not be there."""
        venv = self.root / VENV.lstrip("/")
        (venv / "bin").mkdir(parents=True)
        packages = venv / "lib/python3.11/site-packages"
        packages.mkdir(parents=True)
        (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
        (venv / "bin/python").symlink_to("/usr/bin/python3")
        (packages / "bound.pth").write_text("/checkout\n/packages\nimport greedy\n")
        (packages / "greedy.py").write_text(GREEDY_TRAINER)
        (packages / "pip.py").write_text("")  # everything is there already
        program = venv / "bin/edge-far"
        program.write_text(f"#!{VENV}/bin/python\nimport sys\nfrom edge_far.cli import main\nsys.exit(main())\n")
        program.chmod(0o755)


def make_control_groups() -> list[Path]:
    """Make control groups of the container's own in hierarchies of version 1; none where there is only version 2."""
    made = []
    name = f"edge-far-container-{os.getpid()}-{secrets.token_hex(2)}"  # the same in each, as nspawn wants it
    for kind in ("memory", "systemd", "unified"):
        folder = Path("/sys/fs/cgroup") / kind / name
        if (folder.parent / "cgroup.procs").exists():
            folder.mkdir()
            made.append(folder)
    return made


def remove_control_group(group: Path) -> bool:
    """Remove a group and those in it; return whether it is gone, for processes take a while to leave it."""
    folders = [path for path in group.rglob("*") if path.is_dir()]
    for folder in [*sorted(folders, reverse=True), group]:  # innermost first
        with suppress(OSError):
            folder.rmdir()
    return not group.exists()


def wait_for(condition: Callable[[], object], timeout_s: float) -> None:
    """Wait until a condition holds; looks are counted and not time, in which the machine may have been frozen."""
    for _ in range(round(timeout_s / 0.2)):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("waited in vain")
