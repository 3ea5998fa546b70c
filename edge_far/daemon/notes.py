"""What the daemon wants a person to know until it is over: one note a topic, with the time it began."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from edge_far.errors import EdgeFarError, StorageError
from edge_far.json_file import Damaged, Within, decode, read_document
from edge_far.quoting import harmless
from edge_far.storage import write_json

__all__ = ["Note", "Notes", "Topic"]

# error: the last run failed. profile: a wrong one was not taken over. release: went back to an earlier one.
# store: was damaged. data: examples were set aside. spool: files that cannot be read. labels: unknown to the model.
# offer: of a fleet, was not used. waiting: why the last look did not end a cycle, where it is none of the conditions.
Topic = Literal["error", "profile", "release", "store", "data", "spool", "labels", "offer", "waiting"]


@dataclass(frozen=True)
class Note:
    """One sentence, what to do about it, and since when (s since 1970)."""

    topic: Topic
    text: str
    advice: str | None
    since_s: Annotated[float, Within(0, 1e12)]


class Notes:
    """The notes of one state directory; a file that is damaged counts as empty."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._notes = {note.topic: note for note in _read(path)}

    def all(self) -> list[Note]:
        """Return the notes, the gravest topic first."""
        return [self._notes[topic] for topic in get_args(Topic) if topic in self._notes]

    def tell(self, topic: Topic, text: str | None, advice: str | None = None) -> None:
        """Set the note of a topic, or with None remove it; the same text keeps its time."""
        known = self._notes.get(topic)
        text, advice = text and harmless(text), advice and harmless(advice)
        if text is None:
            if known is None:
                return
            del self._notes[topic]
        elif known is not None and (known.text, known.advice) == (text, advice):
            return
        else:
            self._notes[topic] = Note(topic, text, advice, self._clock())
        with suppress(StorageError):  # on a full disk the note lives as long as the process
            write_json(self._path, [asdict(note) for note in self.all()])

    def tell_error(self, error: EdgeFarError) -> None:
        """Note a failure; its hint becomes the advice."""
        self.tell("error", f"{error.where}: {error.message}" if error.where else error.message, error.hint)


def _read(path: Path) -> list[Note]:
    try:
        entries = read_document(path, tuple[Any, ...])
    except (OSError, Damaged):
        return []
    found: list[Note] = []
    for entry in entries:
        with suppress(Damaged):  # of another version, or damaged
            found.append(decode(Note, entry))
    return found
