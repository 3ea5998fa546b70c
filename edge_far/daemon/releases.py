"""The models an application gets: complete directories under `releases/`, one of them named by `current`.

    releases/000002-5d41402a/   manifest.json and the files it lists with their SHA-256
    current -> releases/000002-5d41402a

A release appears by one rename after everything in it is durable, and `current` changes by one rename after
that. Every use checks all hashes. Refuses to know what is in the files and why a release is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_far.errors import DataError, InputMissing
from edge_far.storage import fsync_directory, sha256_of, staged_directory, storage_error, write_json

__all__ = ["Release", "ReleaseDamaged", "Releases"]

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 20
READ_BYTES = 1 << 20
ID = re.compile(r"(\d{6})-[0-9a-f]{8}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
DIRECTORY_MODE, FILE_MODE = 0o755, 0o644  # for the application to read, for nobody else to write


class ReleaseDamaged(DataError):
    """A release is incomplete, changed or unsafe; it must not be used."""


@dataclass(frozen=True)
class Release:
    """One verified release; `replaces` was current when it was made, None for the factory's."""

    id: str
    path: Path
    replaces: str | None
    created_s: float
    facts: Mapping[str, Any]
    files: tuple[str, ...]

    @property
    def sequence(self) -> int:
        """Return the release's number; the factory release has 0."""
        return int(self.id[:6])


class Releases:
    """The releases below one directory; changes are locked, so that commands may run beside a daemon.

    Raises ReleaseDamaged (65) for a release that must not be used, StorageError (74).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self._releases = self.directory / "releases"
        self._link = self.directory / "current"
        with self._storage_errors():
            for path in (self.directory, self._releases):
                if not path.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    fsync_directory(path.parent)
                if stat.S_IMODE(path.stat().st_mode) != DIRECTORY_MODE:
                    path.chmod(DIRECTORY_MODE)

    def ids(self) -> list[str]:
        """Return the releases that are there, the earliest first, without checking them."""
        with self._storage_errors():
            return sorted(path.name for path in self._releases.iterdir() if ID.fullmatch(path.name))

    def next_id(self, source: Path) -> str:
        """Return an ID not used yet for a release of the files in `source`."""
        digest = hashlib.sha256()
        for name in _source_names(source):
            digest.update(f"{name}\0{sha256_of(source / name)}\0".encode())
        numbers = [int(name[:6]) for name in self._every_id()]
        return f"{max(numbers, default=-1) + 1:06d}-{digest.hexdigest()[:8]}"

    def publish(self, id: str, source: Path, *, replaces: str | None, facts: Mapping[str, Any]) -> Release:
        """Copy the files of `source` into a complete release; does nothing where that was done before."""
        with self._lock():
            with suppress(ReleaseDamaged, InputMissing):
                return self.verify(id)
            final = self._path(id)
            if final.exists():
                self._set_aside(id)
            with staged_directory(final) as directory, self._storage_errors():
                directory.chmod(DIRECTORY_MODE)
                files = {name: _copy(source / name, directory / name) for name in _source_names(source)}
                manifest = {
                    **{"format": FORMAT, "id": id, "replaces": replaces, "created_s": time.time()},
                    **{"facts": dict(facts), "files": files},
                }
                write_json(directory / MANIFEST, manifest)
                (directory / MANIFEST).chmod(FILE_MODE)
            return self.verify(id)

    def verify(self, id: str, *, hashes: bool = True) -> Release:
        """Return a release after checking every file of it; raises ReleaseDamaged, InputMissing.

        Without `hashes` the files' presence, kind and size are checked, not their content.
        """
        path = self._path(id)
        try:
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise InputMissing("release does not exist", where=id, hint="see 'edge-far releases'") from error
        except OSError as error:
            raise ReleaseDamaged("is not a directory of its own", where=id) from error
        try:
            return self._verify(id, path, directory, hashes)
        except OSError as error:
            raise ReleaseDamaged(f"cannot be read: {error.strerror}", where=id) from error
        finally:
            os.close(directory)

    def current_id(self) -> str | None:
        """Return the release that `current` names, whether it is good or not; None when there is none."""
        try:
            target = self._link.readlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            where = str(self._link)
            raise ReleaseDamaged("is not a symbolic link", where=where, hint="remove it") from error
        if target.parent != Path("releases") or not ID.fullmatch(target.name):
            raise ReleaseDamaged(f"leads to '{target}'", where=str(self._link), hint="remove it")
        return target.name

    def switch(self, id: str, *, expected: str | None) -> Release:
        """Verify a release and let `current` name it; `expected` must be current now, else DataError."""
        with self._lock():
            release = self.verify(id)
            found = self.current_id()
            if found not in (expected, id):
                raise DataError(f"the current release is {found or 'none'}, not {expected}", where=id)
            self._point_at(id)
            return release

    def load_current(self) -> tuple[Release, str | None]:
        """Return the current release; where it is damaged, go back to a good one and say so in a note."""
        with self._lock():
            try:
                id = self.current_id()
                if id is None:
                    raise ReleaseDamaged("no release is current", where=str(self.directory))
                return self.verify(id), None
            except (ReleaseDamaged, InputMissing) as error:
                return self._fall_back(error)

    def rollback(self) -> Release:
        """Let `current` name the release that the current one replaced, or a good one before that."""
        with self._lock():
            id = self.current_id()
            for candidate in self._before(id):
                with suppress(ReleaseDamaged, InputMissing):
                    release = self.verify(candidate)
                    self._point_at(candidate)
                    return release
            raise InputMissing("there is no earlier release", where=id or str(self.directory))

    def prune(self, keep: Iterable[str] = ()) -> list[str]:
        """Remove all releases but the current, the one it replaced, the first, and `keep`; return the removed."""
        with self._lock():
            current = self.current_id()
            if current is None:
                return []
            kept = {current, *self._before(current)[:1], *self.ids()[:1], *keep}
            removed = [id for id in self.ids() if id not in kept]
            with self._storage_errors():
                for id in removed:
                    self._path(id).rename(self._releases / f".{id}.gone.tmp")
                for path in [*self._releases.glob(".*.tmp"), *self.directory.glob(".current.*.tmp")]:
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
            return removed

    def _verify(self, id: str, path: Path, directory: int, hashes: bool) -> Release:
        raw = _read(id, MANIFEST, directory, MANIFEST_BYTES)
        try:
            manifest = json.loads(raw)
            files = {
                str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in manifest["files"].items()
            }
            release = Release(
                *(str(manifest["id"]), path, manifest["replaces"], float(manifest["created_s"])),
                *(dict(manifest["facts"]), tuple(sorted(files))),
            )
            format_version = int(manifest["format"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ReleaseDamaged(f"{MANIFEST} is broken: {error!r:.80}", where=id) from error
        if format_version > FORMAT:
            raise ReleaseDamaged("was made by a newer edge-far", where=id, hint="install that version")
        if release.id != id:
            raise ReleaseDamaged(f"{MANIFEST} is that of another release", where=id)
        if release.replaces is not None and not ID.fullmatch(str(release.replaces)):
            raise ReleaseDamaged(f"{MANIFEST} names a release that cannot be", where=id)
        for name, (digest, size) in files.items():
            if not FILE_NAME.fullmatch(name):
                raise ReleaseDamaged(f"{MANIFEST} names the unsafe file '{name[:60]}'", where=id)
            if _digest(id, name, directory, size, hashes) not in (digest, None):
                raise ReleaseDamaged("content has changed since the release was made", where=f"{id}/{name}")
        return release

    def _fall_back(self, reason: DataError | InputMissing) -> tuple[Release, str | None]:
        damaged = None
        with suppress(ReleaseDamaged):
            damaged = self.current_id()
        for candidate in self._before(damaged):
            with suppress(ReleaseDamaged, InputMissing):
                release = self.verify(candidate)
                self._point_at(candidate)
                note = f"{reason}; went back to release {candidate}"
                if damaged is not None and self._path(damaged).is_dir():
                    note += f", the damaged one is kept as {self._set_aside(damaged)}"
                return release, note
        raise ReleaseDamaged(
            f"no good release is left: {reason.message}",
            where=reason.where,
            hint="install the factory bundle again",
        ) from reason

    def _before(self, id: str | None) -> list[str]:
        """Return the releases to go back to, the best first: what was replaced in turn, then earlier ones."""
        chain: list[str] = []
        link = id
        while link is not None:
            link = self._replaces(link)
            if link is None or link in chain or link == id:
                break
            chain.append(link)
        earlier = [other for other in reversed(self.ids()) if id is None or other < id]
        known = set(self.ids())
        return [other for other in dict.fromkeys([*chain, *earlier]) if other in known]

    def _replaces(self, id: str) -> str | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((self._path(id) / MANIFEST).read_bytes())["replaces"]
            return found if isinstance(found, str) and ID.fullmatch(found) else None
        return None

    def _point_at(self, id: str) -> None:
        temporary = self.directory / f".current.{os.getpid()}.tmp"
        with self._storage_errors():
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(Path("releases") / id)
            if self._link.is_dir() and not self._link.is_symlink():
                raise ReleaseDamaged("is a directory", where=str(self._link), hint="remove it")
            temporary.replace(self._link)
            fsync_directory(self.directory)

    def _set_aside(self, id: str) -> str:
        number = 1
        while (target := self._releases / f".corrupt-{id}-{number}").exists():
            number += 1
        with self._storage_errors():
            self._path(id).rename(target)
            fsync_directory(self._releases)
        return f"releases/{target.name}"

    def _every_id(self) -> list[str]:
        """Return all IDs in use, those of damaged releases included."""
        with self._storage_errors():
            return [found[0] for path in self._releases.iterdir() if (found := ID.search(path.name))]

    def _path(self, id: str) -> Path:
        if not ID.fullmatch(id):
            raise InputMissing("is not the ID of a release", where=id[:60], hint="see 'edge-far releases'")
        return self._releases / id

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with self._storage_errors():
            descriptor = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, self.directory) from error


def _source_names(source: Path) -> list[str]:
    """Return the files of a directory that is to become a release; raises DataError for anything unsafe."""
    try:
        names = sorted(path.name for path in source.iterdir())
    except OSError as error:
        raise storage_error(error, source) from error
    for name in names:
        found = (source / name).lstat()
        if not FILE_NAME.fullmatch(name) or name == MANIFEST or not stat.S_ISREG(found.st_mode):
            raise DataError("cannot be part of a release", where=str(source / name))
    if not names:
        raise DataError("is empty", where=str(source))
    return names


def _copy(source: Path, target: Path) -> dict[str, object]:
    """Copy a file, readable for all; return the manifest's entry of what was written."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        os.fchmod(writer.fileno(), FILE_MODE)
        while piece := reader.read(READ_BYTES):
            digest.update(piece)
            size += len(piece)
            writer.write(piece)
    return {"sha256": digest.hexdigest(), "bytes": size}


def _open(id: str, name: str, directory: int) -> tuple[int, int]:
    """Return descriptor and size of a file of a release; ReleaseDamaged where it is not its own."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise ReleaseDamaged(f"cannot be opened: {error.strerror}", where=f"{id}/{name}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_mode & 0o022:
        os.close(descriptor)
        raise ReleaseDamaged("is not a regular file with one name that only its owner may write", where=f"{id}/{name}")
    return descriptor, found.st_size


def _read(id: str, name: str, directory: int, limit: int) -> bytes:
    descriptor, size = _open(id, name, directory)
    with os.fdopen(descriptor, "rb") as file:
        if size > limit:
            raise ReleaseDamaged("is too large", where=f"{id}/{name}")
        return file.read(limit)


def _digest(id: str, name: str, directory: int, size: int, hashes: bool) -> str | None:
    descriptor, found = _open(id, name, directory)
    with os.fdopen(descriptor, "rb") as file:
        if found != size:
            raise ReleaseDamaged(f"has {found} bytes instead of {size}", where=f"{id}/{name}")
        if not hashes:
            return None
        digest = hashlib.sha256()
        while piece := file.read(READ_BYTES):
            digest.update(piece)
        return digest.hexdigest()
