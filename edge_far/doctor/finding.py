"""What a finding is, and what every room of this wing is given. Refuses to know any topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_far.device.board.identity import Identity
from edge_far.device.board.known_boards import Match
from edge_far.device.board.sensors import Sensors
from edge_far.quoting import one_line

__all__ = ["UNKNOWN", "Finding", "Subject", "Verdict", "worst"]

Verdict = Literal["ok", "note", "warn", "bad"]
VERDICTS: tuple[Verdict, ...] = ("ok", "note", "warn", "bad")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One topic: what was read (UNKNOWN where nothing was), how that is, why, and what to do; each is one line.

    `note` is worth knowing, `warn` works but should be put right, `bad` does not work. `todo` is a line to type, or
    what to do in words; empty where nothing is to be done.
    """

    name: str
    verdict: Verdict
    read: str
    why: str = ""
    todo: str = ""

    def __post_init__(self) -> None:
        """Take from what files say whatever could steer a terminal."""
        for text in ("read", "why", "todo"):
            object.__setattr__(self, text, one_line(getattr(self, text)))

    def as_document(self) -> dict[str, Any]:
        """Return the finding for `--json`."""
        return {"name": self.name, "read": self.read, "verdict": self.verdict, "why": self.why, "todo": self.todo}


@dataclass(frozen=True)
class Subject:
    """What is examined: a machine's files below `root`, at the time `now_s` (Unix seconds).

    That is None for a system that does not run here. `state` and `cache` are the directories of the
    service's state and of our cache, below `root` already.
    """

    root: Path
    now_s: float | None
    board: Identity
    match: Match | None
    state: Path
    cache: Path | None

    @property
    def is_here(self) -> bool:
        """Whether this is the running machine, not a tree of files."""
        return self.root == Path("/")

    @property
    def is_raspberry_pi(self) -> bool:
        """Whether the board calls itself so."""
        return (self.board.model or "").startswith("Raspberry Pi")

    @property
    def is_jetson(self) -> bool:
        """Whether the board is NVIDIA's."""
        model = (self.board.model or "").lower()
        return model.startswith(("nvidia", "jetson"))

    @property
    def sensors(self) -> Sensors:
        """The sensors below the root."""
        return Sensors(self.root)


def worst(findings: Sequence[Finding]) -> Verdict:
    """Return the worst verdict, ok where there is no finding."""
    return max((finding.verdict for finding in findings), key=VERDICTS.index, default="ok")
