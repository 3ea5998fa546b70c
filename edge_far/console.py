"""What a person sees on stderr: messages and progress with ETA; stdout is left to results.

Uses rich where it is installed and stderr is a terminal; otherwise prints a plain line every few seconds, so
that a journal or a log file stays readable.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from edge_far.quoting import harmless, one_line

__all__ = ["Console", "Progress", "say"]

PLAIN_INTERVAL_S = 5.0


def say(message: str) -> None:
    """Print a line on stderr; what cannot be shown is dropped, for no work ends because of a message."""
    if sys.stderr is not None:  # print() would take stdout instead, where the result belongs
        with suppress(OSError, ValueError):
            print(harmless(message), file=sys.stderr, flush=True)


class Progress(Protocol):
    """A running display of one piece of long work."""

    def update(self, done: int, text: str = "") -> None:
        """Show that `done` of the total units are done, with a short text such as the loss."""


class Console:
    """Messages for people, each one line whatever it quotes; `quiet` hides all but warnings, `verbose` adds detail."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose

    def info(self, message: str) -> None:
        """Print a message unless quiet."""
        if not self.quiet:
            say(one_line(message))

    def detail(self, message: str) -> None:
        """Print a message only with `--verbose`."""
        if self.verbose:
            say(one_line(message))

    def warn(self, message: str) -> None:
        """Print a warning, also when quiet."""
        say(f"warning: {one_line(message)}")

    @contextmanager
    def progress(self, total: int, label: str, *, done: int = 0) -> Iterator[Progress]:
        """Show progress over `total` units, starting at `done` (after a resume)."""
        if self.quiet:
            yield _Silent()
            return
        shown = _rich_progress(total, label, done) if sys.stderr is not None and sys.stderr.isatty() else None
        if shown is None:
            yield _Plain(total, label, done)
            return
        display, progress = shown
        with display:
            yield progress


class _Silent:
    def update(self, done: int, text: str = "") -> None:
        """Show nothing."""


class _Plain:
    """One line at most every PLAIN_INTERVAL_S, and the last one always."""

    def __init__(self, total: int, label: str, done: int) -> None:
        self.total, self.label, self.first = total, label, done
        self.started = self.shown = time.monotonic()

    def update(self, done: int, text: str = "") -> None:
        now = time.monotonic()
        if done < self.total and now - self.shown < PLAIN_INTERVAL_S:
            return
        self.shown = now
        advanced = max(done - self.first, 1)
        left = (now - self.started) / advanced * (self.total - done)
        say(
            f"{self.label}: {done}/{self.total} ({done / max(self.total, 1):.0%}) "
            f"ETA {_clock(left)}{'  ' + text if text else ''}"
        )


class _Rich:
    def __init__(self, display: Any, task: Any) -> None:
        self.display, self.task = display, task

    def update(self, done: int, text: str = "") -> None:
        self.display.update(self.task, completed=done, text=text)


def _rich_progress(total: int, label: str, done: int) -> tuple[Any, Progress] | None:
    try:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    display = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        console=RichConsole(stderr=True),
    )
    task = display.add_task(label, total=total, completed=done, text="")
    return display, _Rich(display, task)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
