"""The files of one release: a directory that is written as a whole, and checked at every use.

    manifest.json     which release this is, what it replaced, and size and SHA-256 of every file
    model.onnx, ...   regular files with one name, which only their owner may write

Refuses to know other releases, which one is current (releases.py), and what the files hold.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from edge_far.errors import DataError, InputMissing
from edge_far.json_file import Count, Damaged, Within, decode, parse_json, read_document
from edge_far.storage import sha256_of, storage_error, write_json
from edge_far.tasks.figures import FIGURES, score_name

__all__ = [
    "DIRECTORY_MODE",
    "ID",
    "Release",
    "ReleaseDamaged",
    "digest_of_content",
    "replaced_release",
    "verify_files",
    "write_files",
]

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


@dataclass(frozen=True)
class _File:
    """Hash and size of one file of a release."""

    sha256: str
    bytes: Count


@dataclass(frozen=True)
class _Manifest:
    """What manifest.json says."""

    format: Count
    id: str
    replaces: str | None
    created_s: Annotated[float, Within(0, 1e12)]
    facts: dict[str, Any]
    files: dict[str, _File]


# --- writing ------------------------------------------------------------------------------------------------


def digest_of_content(source: Path) -> str:
    """Return a SHA-256 over names and content of the files in `source`; raises DataError for anything unsafe."""
    digest = hashlib.sha256()
    for name in _names_in(source):
        digest.update(f"{name}\0{sha256_of(source / name)}\0".encode())
    return digest.hexdigest()


def write_files(directory: Path, source: Path, *, id: str, replaces: str | None, facts: Mapping[str, Any]) -> None:
    """Copy the files of `source` into the new `directory` and describe them; raises DataError, OSError."""
    directory.chmod(DIRECTORY_MODE)
    files = {name: _copy(source / name, directory / name) for name in _names_in(source)}
    manifest = {
        "format": FORMAT,
        "id": id,
        "replaces": replaces,
        "created_s": time.time(),
        "facts": dict(facts),
        "files": files,
    }
    write_json(directory / MANIFEST, manifest)
    (directory / MANIFEST).chmod(FILE_MODE)


def _names_in(source: Path) -> list[str]:
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


# --- checking -----------------------------------------------------------------------------------------------


def verify_files(path: Path, id: str, *, hashes: bool = True) -> Release:
    """Return the release in a directory after checking every file of it; raises ReleaseDamaged, InputMissing.

    Without `hashes` the files' presence, kind and size are checked, not their content.
    """
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise InputMissing("release does not exist", where=id, hint="see 'edge-far releases'") from error
    except OSError as error:
        raise ReleaseDamaged("is not a directory of its own", where=id) from error
    try:
        manifest = _read_manifest(id, directory)
        for name, file in manifest.files.items():
            if not FILE_NAME.fullmatch(name):
                raise ReleaseDamaged(f"{MANIFEST} names the unsafe file {name[:60]!a}", where=id)
            if _digest(id, name, directory, file.bytes, hashes) not in (file.sha256, None):
                raise ReleaseDamaged("content has changed since the release was made", where=f"{id}/{name}")
    except OSError as error:
        raise ReleaseDamaged(f"cannot be read: {error.strerror}", where=id) from error
    finally:
        os.close(directory)
    names = tuple(sorted(manifest.files))
    return Release(manifest.id, path, manifest.replaces, manifest.created_s, manifest.facts, names)


def replaced_release(path: Path) -> str | None:
    """Return the release that the one in a directory says it replaced; None where it says nothing that can be."""
    with suppress(OSError, Damaged):
        found = read_document(path / MANIFEST, dict[str, Any]).get("replaces")
        return found if isinstance(found, str) and ID.fullmatch(found) else None
    return None


def _read_manifest(id: str, directory: int) -> _Manifest:
    raw = _read(id, MANIFEST, directory, MANIFEST_BYTES)
    try:
        document = parse_json(raw)
        version = document.get("format") if isinstance(document, dict) else None
        if type(version) is int and version > FORMAT:
            raise ReleaseDamaged("was made by a newer edge-far", where=id, hint="install that version")
        manifest: _Manifest = decode(_Manifest, document)
        decode(str | None, manifest.facts.get("kind"), "facts.kind")
        for name in ("held_out", "base"):
            _refuse_odd_figures(manifest.facts.get(name), f"facts.{name}")
    except Damaged as error:
        raise ReleaseDamaged(f"{MANIFEST} is broken: {error}", where=id) from error
    if manifest.id != id:
        raise ReleaseDamaged(f"{MANIFEST} is that of another release", where=id)
    if manifest.replaces is not None and not ID.fullmatch(str(manifest.replaces)):
        raise ReleaseDamaged(f"{MANIFEST} names a release that cannot be", where=id)
    return manifest


def _refuse_odd_figures(figures: Any, where: str) -> None:
    """Raise Damaged where a comparison's figures, which `status` and `releases` tell, are none."""
    if figures is not None:
        found = decode(dict[str, Any], figures, where)
        score = score_name(found)
        if score not in FIGURES:
            raise Damaged(f"'{where}.score' is none of {', '.join(FIGURES)}")
        bounds = Within(FIGURES[score].low, FIGURES[score].high)
        for name in (f"candidate_{score}", f"reference_{score}"):
            decode(Annotated[float, bounds], found.get(name), f"{where}.{name}")
        decode(Count, found.get("examples"), f"{where}.examples")


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
    """Return a file's SHA-256, or None without `hashes`; ReleaseDamaged where it has another size."""
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
