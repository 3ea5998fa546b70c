"""What every target is: good inputs on disk, hostile variants of them, and a judgement of what the product did."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from edge_far import cli
from edge_far.quoting import harmless
from tests.fuzz.judge import Bounds, Ending, problem_of, run

__all__ = ["DATA", "Case", "Target"]

DATA = frozenset({0, 65})
FEW_MIB = 96.0


@dataclass(frozen=True)
class Case:
    """One hostile input: files by their path below the working directory, and a command line.

    In the command line `{work}` and `{bundle}` stand for the working directory and a good bundle.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    stdin: bytes = b""


class Target(ABC):
    """One kind of input. `good` holds good inputs, made once; `work` is a fresh copy of it for every case.

    Only `outputs` below `work` may be written to, and the cache. Without `links` a file of `work` is a file of its own,
    else another name of that in `good`, which is quicker.
    """

    name = ""
    codes = DATA
    silent: frozenset[int] = frozenset()
    outputs: tuple[str, ...] = ("out",)
    links = False
    seconds = 30.0
    mib = FEW_MIB

    def __init__(self, place: Path, bundle: Path) -> None:
        self.bundle = bundle
        self.good = place / self.name / "good"
        self.work = place / self.name / "work"
        self.cache = place / "cache"  # of the command line, and where its temporary files lie
        self.cache.mkdir(parents=True, exist_ok=True)
        if not self.good.is_dir():
            making = self.good.with_name("making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            self.prepare(making)
            making.rename(self.good)

    def prepare(self, good: Path) -> None:
        """Write the good inputs; without any the directory stays empty."""
        return

    @abstractmethod
    def make(self, chance: Random) -> Case:
        """Return a hostile input."""

    def problem(self, case: Case) -> str | None:
        """Lay a case, run its command and return what is wrong with the ending, or None."""
        with self.laid(case):
            ending = run(self.filled(case), self.bounds, stdin=case.stdin)
            return problem_of(ending, self.bounds) or self.wrong_result(case, ending) or _text_problem(case, ending)

    def wrong_result(self, case: Case, ending: Ending) -> str | None:
        """Return what is wrong with a result that ended well in form, or None; `work` is still there."""
        return None

    @property
    def bounds(self) -> Bounds:
        """Return what an ending may be."""
        free = (*(self.work / name for name in self.outputs), self.cache)
        return Bounds(self.codes, free, self.seconds, self.mib, self.silent)

    def filled(self, case: Case) -> list[str]:
        """Return the case's command line with this target's paths."""
        return [word.replace("{work}", str(self.work)).replace("{bundle}", str(self.bundle)) for word in case.arguments]

    def read(self, name: str) -> bytes:
        """Return the content of a good file."""
        return (self.good / name).read_bytes()

    @contextmanager
    def laid(self, case: Case) -> Iterator[None]:
        """Make the working directory: the good inputs, and the case's files instead of theirs."""
        shutil.rmtree(self.work, ignore_errors=True)
        copy = _link if self.links else shutil.copy2
        shutil.copytree(self.good, self.work, symlinks=True, copy_function=copy)
        for name, content in case.files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        try:
            yield
        finally:
            shutil.rmtree(self.work, ignore_errors=True)


def _text_problem(case: Case, ending: Ending) -> str | None:
    """Return what is wrong with the text that a person would see instead of the document, or None."""
    if ending.code is None or "error" in ending.document:
        return None
    command = next(word for word in case.arguments if not word.startswith("-"))
    try:
        harmless(cli._module(command).render(ending.document)).encode()
    except Exception as error:
        return f"{type(error).__name__} at render of {command}: {error}"
    return None


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
