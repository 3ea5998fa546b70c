"""How often the trainer was interrupted without getting ahead, and what to do about it. No files, no store.

An interruption is a start of the trainer whose end nobody saw: the power failed, or something ended the whole daemon.
It is no evidence against the data. The answer is to save more often, until the time between two interruptions is
enough for a checkpoint; where not even one step is, a smaller plan, because memory may be what ends the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

__all__ = ["Interruptions"]

CHECKPOINT_MINUTES = 2.0
EVERY_STEP = 5  # fruitless interruptions, each of which halves the time between checkpoints: 2 minutes to 7 seconds
SMALLER_PLAN = 10


@dataclass(frozen=True)
class Interruptions:
    """Of one cycle: `count` in all, `fruitless` those without a new checkpoint less those with one.

    `started_from` is the newest checkpoint when the trainer was started last ('': none), or None once its end was seen.
    """

    count: int = 0
    fruitless: int = 0
    started_from: str | None = None

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Interruptions:
        """Return what a cycle's details tell."""
        return cls(**details.get("interruptions", {}))

    def started(self, newest: str) -> Interruptions:
        """Return it at a start of the trainer, whose newest checkpoint is `newest`."""
        if self.started_from is None:
            return replace(self, started_from=newest)
        fruitless = self.fruitless + 1 if newest == self.started_from else max(0, self.fruitless - 1)
        return Interruptions(self.count + 1, fruitless, newest)

    def ended(self) -> Interruptions:
        """Return it after an end of the trainer that was seen."""
        return replace(self, started_from=None)

    def with_smaller_plan(self) -> Interruptions:
        """Return it for a new run with a smaller plan, which has its own chance to get ahead."""
        return Interruptions(self.count, EVERY_STEP)

    @property
    def ask_for_smaller_plan(self) -> bool:
        """Return whether checkpoints at every step did not help either."""
        return self.fruitless >= SMALLER_PLAN

    def checkpoint_options(self) -> list[str]:
        """Return the trainer's options for how often it saves."""
        if self.fruitless >= EVERY_STEP:
            return ["--checkpoint-steps", "1"]
        return ["--checkpoint-minutes", f"{CHECKPOINT_MINUTES / 2**self.fruitless:g}"]

    def describe(self) -> str:
        """Return a clause for `status`; '' where there was none."""
        if not self.count:
            return ""
        text = f"interrupted {self.count} times" if self.count > 1 else "interrupted once"
        if not self.fruitless:
            return text
        seconds = 60 * CHECKPOINT_MINUTES / 2**self.fruitless
        often = "at every step" if self.fruitless >= EVERY_STEP else f"every {seconds:g} s"
        return f"{text}, {self.fruitless} of them without getting ahead: it saves {often} now"

    def as_details(self) -> dict[str, Any]:
        """Return what goes into a cycle's details."""
        return {"interruptions": asdict(self)}
