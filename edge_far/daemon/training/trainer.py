"""The trainer as a child: the words that start it on a directory's material, and its run, begun or gone on with.

Refuses to know what it is trained for: a cycle's candidate (phase.py), or a fleet's round (fleet/board/worker.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_far.daemon.children.child_end import ChildEnd, Progress
from edge_far.daemon.children.supervisor import Supervisor, Wish
from edge_far.daemon.context import Context
from edge_far.daemon.state import CycleDirectory

__all__ = ["run_trainer"]


def run_trainer(
    context: Context,
    supervisor: Supervisor,
    files: CycleDirectory,
    run: Path,
    *,
    learners: Path,
    epochs: int,
    learning_rate: float,
    more: Sequence[str | Path],
    wish: Callable[[Progress], Wish],
) -> ChildEnd:
    """Train on the material in `files` from `learners` on; a run that has begun is gone on with, `more` are options.

    Raises as `Supervisor.run`.
    """
    resume = (run / "run.json").is_file()
    if not resume:
        shutil.rmtree(run, ignore_errors=True)
    files.control.unlink(missing_ok=True)
    arguments: list[str | Path] = ["train", context.bundle.root, "--train", files.train, "--out", run]
    arguments += ["--learners", learners, "--profile", context.profile_source]
    arguments += ["--epochs", str(epochs), "--learning-rate", repr(learning_rate)]
    arguments += ["--left-out", files.left_out, "--control", files.control, "--cache", context.state.cache]
    arguments += ["--json", "-q", *more, *(["--resume"] if resume else [])]
    return supervisor.run(arguments, files.output("train"), log=run / "log.jsonl", control=files.control, wish=wish)
