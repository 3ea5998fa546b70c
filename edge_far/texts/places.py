"""Places for labels that nobody knows yet: outputs of a model named reserved-0, reserved-1, ... until one is taken.

A label that takes one stands in its place from then on. Standard library only: the daemon's parent process asks too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_far.errors import ConfigError
from edge_far.json_file import read_document
from edge_far.quoting import one_line, quoted
from edge_far.texts.labels import Names
from edge_far.texts.reading.problems import RecordProblem

__all__ = [
    "LABELS_FILE",
    "UNFIT_LABEL",
    "OpenNames",
    "fits_a_label",
    "free_places",
    "is_place",
    "named_places",
    "places",
    "read_labels",
]

LABELS_FILE = "labels.json"  # of a release
MAX_LABEL_CHARACTERS = 200
UNFIT_LABEL = f"is not a printable text of 1 to {MAX_LABEL_CHARACTERS} characters"
MOST_TOLD = 10
_PLACE = re.compile(r"reserved-[0-9]+")


def places(count: int) -> list[str]:
    """Return the names of so many places."""
    return [f"reserved-{number}" for number in range(count)]


def is_place(name: str) -> bool:
    """Say whether a name is that of a place, which no label may have."""
    return _PLACE.fullmatch(name) is not None


def free_places(labels: Sequence[str]) -> list[int]:
    """Return the numbers of the outputs that no label has taken."""
    return [number for number, label in enumerate(labels) if is_place(label)]


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the labels of all outputs that a file lists; raises OSError, and Damaged where it is no such list."""
    return tuple(read_document(path, tuple[str, ...]))


def fits_a_label(name: str) -> bool:
    """Say whether a text may name a label that nobody knew: of at most 200 characters, none of which steers a terminal.

    The joiners that writing systems need are not printable to Python, and allowed.
    """
    return 0 < len(name) <= MAX_LABEL_CHARACTERS and one_line(name) == name


def named_places(labels: Sequence[str], new: Iterable[str]) -> tuple[str, ...]:
    """Return the labels with new ones in the first free places; raises ConfigError where there are too few."""
    named, free = list(labels), free_places(labels)
    wanted = [name for name in dict.fromkeys(new) if name not in named]
    if len(wanted) > len(free):
        raise ConfigError(
            f"{len(wanted)} new labels, and the bundle has {len(free)} free places: {_told(wanted)}",
            where="--new-labels",
            hint="export a bundle with more of them (edge-far export --reserve-labels)",
        )
    for place, name in zip(free, wanted, strict=False):
        named[place] = name
    return tuple(named)


def _told(names: Sequence[str]) -> str:
    more = "" if len(names) <= MOST_TOLD else f" and {len(names) - MOST_TOLD} more"
    return ", ".join(map(quoted, names[:MOST_TOLD])) + more


class OpenNames(Names):
    """One name, known or not: what is not known may become a label. A place's name is none."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        super().__init__([name for name in names or () if not is_place(name)])

    def unknown(self, label: str) -> RecordProblem | None:
        """Return the problem of a label that is called like a place, or that no new label may be called."""
        if is_place(label):
            return RecordProblem(f"the label '{label}' is the name of a free place", "name it")
        if label not in self.known and not fits_a_label(label):
            return RecordProblem(f"the label {quoted(label)} {UNFIT_LABEL}", "give it a shorter, plain name")
        return None
