"""A Debian for arm64 that boots on an emulated machine (qemu-system-aarch64): its own kernel, systemd, nothing of ours.

Every instruction is emulated, so whatever runs there is slow, and no time is a board's. Needs root, the packages
qemu-system-arm and openssh-client, and a root of Debian 12 with a kernel that has NVMe built in:

    with=systemd,systemd-sysv,udev,dbus,python3,python3-venv,openssh-server,linux-image-cloud-arm64
    debootstrap --arch=arm64 --foreign --variant=minbase --include=$with bookworm build/debian-arm64
    chroot build/debian-arm64 /debootstrap/debootstrap --second-stage     # needs qemu-user-static and binfmt_misc

No network leads out of it: commands come by ssh through a port of this machine's loopback.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

from tests.systemd.container import CHECKOUT, wait_for
from tests.systemd.machine import Machine

ARM64 = Path(os.environ.get("EDGE_FAR_DEBIAN_ARM64_ROOT", CHECKOUT / "build" / "debian-arm64"))
PROGRAMS = {"qemu-system-aarch64": "qemu-system-arm", "mke2fs": "e2fsprogs", "ssh": "openssh-client"}
CORE, MEMORY_MIB, DISK_MIB = "cortex-a72", 2048, 4096
BOOT_S = 1800  # on a machine with other work
NETWORK = "[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\n"


def why_not() -> str | None:
    """Return why this cannot run here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"needs {program} (apt install {package})"
    if not list(ARM64.glob("boot/vmlinuz-*-arm64")):
        return f"needs a Debian root for arm64 in {ARM64} (see tests/systemd/emulated_board.py)"
    return None


class EmulatedBoard(Machine):
    """One booted machine of one core; its disk is made of `root` and of `files`, and thrown away with it.

    `files` are folders by the place where they are seen, read when the disk is made.
    """

    def __init__(self, folder: Path, files: dict[str, Path]) -> None:
        self.folder, self.key = folder, folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        disk = self._disk(files)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        (kernel,) = ARM64.glob("boot/vmlinuz-*-arm64")
        self.log = (folder / "console.log").open("wb")
        self.process = subprocess.Popen(
            [
                *("qemu-system-aarch64", "-M", "virt", "-cpu", CORE, "-smp", "1", "-m", str(MEMORY_MIB), "-nographic"),
                *("-kernel", kernel, "-append", "root=/dev/nvme0n1 rw console=ttyAMA0"),
                *(
                    "-drive",
                    f"file={disk},format=raw,if=none,id=disk,cache=unsafe",
                    "-device",
                    "nvme,drive=disk,serial=1",
                ),
                *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"),
                *("-device", "virtio-net-pci,netdev=net,romfile="),
            ],
            **{"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log},
        )
        wait_for(lambda: self.process.poll() is not None or self.call("true").returncode == 0, BOOT_S)
        wait_for(lambda: self.run("systemctl", "is-system-running", check=False) in ("running", "degraded"), BOOT_S)

    def _disk(self, files: dict[str, Path]) -> Path:
        """Return the image of a disk: the root, what opens it to our key, and the files."""
        copy, disk = self.folder / "root", self.folder / "disk.img"
        subprocess.run(["cp", "-a", "--reflink=auto", f"{ARM64}/.", copy], check=True)
        (copy / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self.key.with_suffix(".pub"), copy / "root/.ssh/authorized_keys")
        (copy / "etc/systemd/network").mkdir(parents=True, exist_ok=True)
        (copy / "etc/systemd/network/board.network").write_text(NETWORK)
        wanted = copy / "etc/systemd/system/multi-user.target.wants"
        (wanted / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
        for place, source in files.items():
            shutil.copytree(source, copy / place.lstrip("/"), dirs_exist_ok=True)
        subprocess.run(
            ["mke2fs", "-q", "-t", "ext4", "-d", copy, disk, f"{DISK_MIB}M"], check=True, stdout=subprocess.DEVNULL
        )
        shutil.rmtree(copy)
        return disk

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root, whatever becomes of it."""
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        options += ["ConnectTimeout=60", "ControlMaster=auto", f"ControlPath={self.folder}/ssh", "ControlPersist=600"]
        words = [word for option in options for word in ("-o", option)]
        return subprocess.run(
            ["ssh", *words, "-i", self.key, "-p", str(self.port), "root@127.0.0.1", shlex.join(command)],
            **{"capture_output": True, "text": True, "timeout": BOOT_S, "check": False, "stdin": subprocess.DEVNULL},
        )

    def read(self, path: str) -> str | None:
        """Return the text of a file inside, None where there is none."""
        done = self.call("cat", path)
        return None if done.returncode else done.stdout

    def close(self) -> None:
        """End the machine."""
        self.process.kill()
        self.process.wait()
        self.log.close()
