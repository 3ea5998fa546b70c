"""The disks below state and cache: of what kind, how much is free, and whether what is written stays written."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_far.device.board.kernel_files import read_text
from edge_far.disk.directory_moves import temporary_sibling
from edge_far.disk.durability import REFUSED
from edge_far.doctor.finding import UNKNOWN, Finding, Subject
from edge_far.storage import TRIAL

__all__ = ["examine_disks"]

LITTLE_MIB = 256.0  # storage.min_free_mib of a profile, where none is known
MAKE_ROOM = "sudo apt clean; sudo journalctl --vacuum-size=50M; sudo du -xh / | sort -h | tail"
# Kinds that keep nothing over a restart.
FLEETING = frozenset({"tmpfs", "ramfs"})
NETWORKS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "virtiofs"})


@dataclass(frozen=True)
class Mount:
    """A mounted file system: where, what, from which device (major:minor), and whether it may be written."""

    point: str
    kind: str
    source: str
    device: str
    writable: bool


def examine_disks(subject: Subject) -> list[Finding]:
    """Return the findings on the directories of state and cache."""
    found = [
        _kind(subject, "state disk", subject.state),
        _space(subject, "state space", subject.state),
        _durable("state fsync", subject.state),
    ]
    if subject.cache is None:
        why = "neither HOME, XDG_CACHE_HOME nor CACHE_DIRECTORY is set: what was measured is measured anew each time"
        return [*found, *(Finding(f"cache {what}", "note", UNKNOWN, why) for what in ("space", "fsync"))]
    return [*found, _space(subject, "cache space", subject.cache), _durable("cache fsync", subject.cache)]


def _kind(subject: Subject, name: str, directory: Path) -> Finding:
    place = _inside(subject.root, directory)
    if _is_no_directory(directory):
        why = "a file stands where the directory should be: the service cannot start"
        return Finding(name, "bad", f"{place} is no directory", why, "name another with --state, or move the file away")
    mount = _mount_of(subject.root, place)
    if mount is None:
        return Finding(name, "note", UNKNOWN, "/proc/self/mountinfo cannot be read")
    medium = _medium(subject.root, mount)
    read = f"{medium} ({mount.kind} of {mount.source}), for {place}"
    if not mount.writable:
        why = "it is mounted read-only: nothing can be learnt or kept"
        return Finding(name, "bad", f"read-only; {read}", why, f"sudo mount -o remount,rw {mount.point}")
    if mount.kind in FLEETING:
        why = "it is gone after a restart: examples and releases with it"
        return Finding(name, "bad", read, why, "edge-far daemon --state DIR   # on a disk")
    if mount.kind == "overlay":
        why = "an overlay: in a container it goes with the container, on an overlay root with the next start"
        return Finding(name, "warn", read, why, f"mount a volume or a disk at {place}")
    if mount.kind in NETWORKS:
        why = "SQLite's locks and fsync are not to be relied on over a network"
        return Finding(name, "warn", read, why, "edge-far daemon --state DIR   # on a disk of the board's own")
    if medium == "SD card":
        why = "a night writes some hundred MiB to it; docs/howto/state-on-ssd.md says how to spare it"
        return Finding(name, "note", read, why)
    return Finding(name, "ok", read)


def _space(subject: Subject, name: str, directory: Path) -> Finding:
    near = _existing(directory)
    free = subject.sensors.disk_free_mib(near)
    if free is None:
        return Finding(name, "note", UNKNOWN, f"{near} cannot be asked")
    read = f"{free:.0f} MiB free at {_inside(subject.root, near)}"
    least = LITTLE_MIB if subject.match is None else float(subject.match.profile.storage.min_free_mib)
    cache = 0.0 if subject.match is None else float(subject.match.profile.storage.cache_mib)
    if free < least:
        why = f"training does not start below {least:.0f} MiB (storage.min_free_mib)"
        return Finding(
            name, "bad", read, why, "sudo apt clean; sudo journalctl --vacuum-size=50M; du -xh / | sort -h | tail"
        )
    if free < least + cache:
        why = f"less than the activation cache may take besides ({cache:.0f} MiB, storage.cache_mib)"
        return Finding(name, "note", read, why)
    return Finding(name, "ok", read)


def _durable(name: str, directory: Path) -> Finding:
    """Whether a file and its directory can be fsynced, tried with one that is removed at once."""
    near = _existing(directory)
    refused = _try(temporary_sibling(near / TRIAL), near)
    if refused is None:
        return Finding(name, "ok", f"works at {near}")
    what, error = refused
    if what == "write" and error.errno not in (errno.EROFS, errno.ENOSPC):
        why = f"{near} is not ours to write ({error.strerror})"
        return Finding(name, "note", UNKNOWN, why, "sudo edge-far doctor")
    if what == "write":
        return Finding(name, "bad", f"cannot write at {near}", str(error.strerror), "see the findings on this disk")
    if error.errno in REFUSED:
        why = f"the file system refuses fsync of a {what}: a power cut may undo what was written last"
        return Finding(name, "warn", f"refused at {near}", why, "keep the state on a disk of the board's own")
    why = f"fsync of a {what} failed: {error.strerror}: the disk may be dying"
    return Finding(name, "bad", f"fails at {near}", why, "dmesg | tail   # then replace the card or the disk")


def _try(path: Path, directory: Path) -> tuple[str, OSError] | None:
    """Return which step failed (write, file, directory), and how; None where all works. Leaves nothing behind.

    Not durability.fsync: that goes on where a file system refuses, and here the refusal is what is asked for.
    """
    step = "write"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"edge-far doctor\n")
            step = "file"
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        step = "directory"
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return step, error
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    return None


def _existing(directory: Path) -> Path:
    """Return the directory, or the nearest above it that is there and may be entered."""
    for each in (directory, *directory.parents):
        with suppress(OSError):
            if each.is_dir() and os.access(each, os.X_OK):
                return each
    return directory


def _is_no_directory(path: Path) -> bool:
    """Say whether something else than a directory stands there, as far as this user may look."""
    try:
        return path.exists() and not path.is_dir()
    except OSError:
        return False


def _inside(root: Path, path: Path) -> str:
    """Return the path as the examined system names it."""
    return str(path) if root == Path("/") else f"/{path.relative_to(root)}"


def _mount_of(root: Path, place: str) -> Mount | None:
    """Return the mount on which a path lies: the longest mount point above it, the last one mounted there."""
    found: Mount | None = None
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        point = _decoded(fields[4])
        above = place == point or place.startswith(f"{point.rstrip('/')}/")
        if above and (found is None or len(point) >= len(found.point)):
            writable = "ro" not in fields[5].split(",") and "ro" not in kind[2].split(",")
            found = Mount(point, kind[0], _decoded(kind[1]), fields[2], writable)
    return found


def _decoded(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def _medium(root: Path, mount: Mount) -> str:
    """Return what the file system lies on: SD card, eMMC, NVMe, USB disk, disk, or its own kind."""
    uevent = read_text(root / f"sys/dev/block/{mount.device}/uevent") or ""
    named = re.search(r"^DEVNAME=([\w/-]{1,60})$", uevent, re.MULTILINE)
    name = named[1] if named else mount.source.removeprefix("/dev/")
    disk = re.match(r"mmcblk[0-9]+|nvme[0-9]+n[0-9]+|sd[a-z]+|vd[a-z]+", name)
    if disk is None:
        return mount.kind
    if disk[0].startswith("mmcblk"):
        return {"SD": "SD card", "MMC": "eMMC"}.get(
            read_text(root / f"sys/block/{disk[0]}/device/type") or "", "SD card"
        )
    if disk[0].startswith("nvme"):
        return "NVMe"
    with suppress(OSError):
        if "/usb" in os.path.realpath(root / f"sys/block/{disk[0]}"):
            return "USB disk"
    return "disk"
