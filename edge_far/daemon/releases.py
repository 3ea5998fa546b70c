"""The models an application gets: complete directories under `releases/`, one of them named by `current`.

    releases/000002-5d41402a/   manifest.json and the files it lists with their SHA-256 (release_files.py)
    current -> releases/000002-5d41402a

A release appears by one rename after everything in it is durable, and `current` changes by one rename after
that. Every use checks all hashes. Refuses to know what is in the files and why a release is made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edge_far.daemon.release_files import (
    DIRECTORY_MODE,
    ID,
    Release,
    ReleaseDamaged,
    digest_of_content,
    replaced_release,
    verify_files,
    write_files,
)
from edge_far.disk.directory_moves import discard_directory, fsync_directory, move_directory
from edge_far.errors import DataError, InputMissing
from edge_far.storage import staged_directory, storage_error

__all__ = ["Releases"]


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

    def path(self, id: str) -> Path:
        """Return the directory of a release, whether it is there or not; InputMissing (66) for what is no ID."""
        if not ID.fullmatch(id):
            raise InputMissing("is not the ID of a release", where=id[:60], hint="see 'edge-far releases'")
        return self._releases / id

    def ids(self) -> list[str]:
        """Return the releases that are there, the earliest first, without checking them."""
        with self._storage_errors():
            return sorted(path.name for path in self._releases.iterdir() if ID.fullmatch(path.name))

    def next_id(self, source: Path) -> str:
        """Return an ID not used yet for a release of the files in `source`."""
        digest = digest_of_content(source)
        numbers = [int(name[:6]) for name in self._every_id()]
        return f"{max(numbers, default=-1) + 1:06d}-{digest[:8]}"

    def publish(self, id: str, source: Path, *, replaces: str | None, facts: Mapping[str, Any]) -> Release:
        """Copy the files of `source` into a complete release; does nothing where that was done before."""
        with self._lock():
            with suppress(ReleaseDamaged, InputMissing):
                return self.verify(id)
            final = self.path(id)
            if final.exists():
                self._set_aside(id)
            with staged_directory(final) as directory, self._storage_errors():
                write_files(directory, source, id=id, replaces=replaces, facts=facts)
            return self.verify(id)

    def verify(self, id: str, *, hashes: bool = True) -> Release:
        """Return a release after checking every file of it; raises ReleaseDamaged, InputMissing.

        Without `hashes` the files' presence, kind and size are checked, not their content.
        """
        return verify_files(self.path(id), id, hashes=hashes)

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
            hint = "'edge-far releases' shows which there are, and --to names one"
            raise InputMissing("there is no earlier release", where=id or str(self.directory), hint=hint)

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
                    discard_directory(self.path(id))
                for path in [*self._releases.glob(".*.tmp"), *self.directory.glob(".current.*.tmp")]:
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
            return removed

    def _fall_back(self, reason: DataError | InputMissing) -> tuple[Release, str | None]:
        damaged = None
        with suppress(ReleaseDamaged):
            damaged = self.current_id()
        for candidate in self._before(damaged):
            with suppress(ReleaseDamaged, InputMissing):
                release = self.verify(candidate)
                self._point_at(candidate)
                note = f"{reason}; went back to release {candidate}"
                if damaged is not None and self.path(damaged).is_dir():
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
            link = replaced_release(self.path(link))
            if link is None or link in chain or link == id:
                break
            chain.append(link)
        earlier = [other for other in reversed(self.ids()) if id is None or other < id]
        known = set(self.ids())
        return [other for other in dict.fromkeys([*chain, *earlier]) if other in known]

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
            move_directory(self.path(id), target)
            fsync_directory(self._releases)
        return f"releases/{target.name}"

    def _every_id(self) -> list[str]:
        """Return all IDs in use, those of damaged releases included."""
        with self._storage_errors():
            return [found[0] for path in self._releases.iterdir() if (found := ID.search(path.name))]

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
