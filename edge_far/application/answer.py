"""What a prediction says, and what is kept of it until the user corrects it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "Asked", "Memory"]

MOST_CHARACTERS = 8 << 20


@dataclass(frozen=True)
class Answer:
    """One answer of one release.

    `label` is what the task calls a label: a name, a number in the user's unit, a tuple of names, tags or answers
    ({"text", "answer_start"}); None for a blank text. `probability` is the label's, a tuple of them for several labels,
    None for a number. `id` is the name under which `Model.feedback` takes a correction, `release` that of the release
    that answered.
    """

    label: Any
    probability: float | tuple[float, ...] | None
    id: str
    release: str


@dataclass(frozen=True)
class Asked:
    """A text that was asked, and the label that was the answer."""

    text: str
    pair: str | None
    label: Any

    @property
    def characters(self) -> int:
        """Return the length of the texts."""
        return len(self.text) + len(self.pair or "")


class Memory:
    """The last texts by their answers' ids: at most `most` of them, and 8 Mi characters; safe among threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._asked)

    def keep(self, id: str, asked: Asked) -> None:
        """Remember a text, and forget the oldest where there are too many, or too long ones."""
        with self._lock:
            self._asked[id] = asked
            self._characters += asked.characters
            while self._asked and (len(self._asked) > self._most or self._characters > MOST_CHARACTERS):
                _, oldest = self._asked.popitem(last=False)
                self._characters -= oldest.characters

    def find(self, id: str) -> Asked | None:
        """Return what was asked under an id, None where it is forgotten or never was."""
        with self._lock:
            return self._asked.get(id)
