"""What came of a choice: the rung, its reason, and a row for every rung that was tried on all examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_far.choice.trials import Trial
from edge_far.choice.verdict import Answers, Compared
from edge_far.tasks.figures import FIGURES

__all__ = ["Choice", "Row", "as_table"]

STATE_BYTES = 16  # of a trained number: itself, its gradient, AdamW's two moments


@dataclass(frozen=True, eq=False)
class Row:
    """One rung on all examples: what it says of the held-out ones, and how it compares with the best.

    `gflop` is what a run on all of the training data is for a device, in 10^9 operations of products.
    """

    trial: Trial
    answers: Answers
    trained: int
    seconds: float
    step_work: float
    job_work: float
    gflop: float
    compared: Compared

    def to_json(self) -> dict[str, Any]:
        """Return the row for people and programs; work is relative to full fine-tuning."""
        trial = self.trial
        return {
            "rung": trial.rung.name,
            "method": trial.rung.method,
            "attention": trial.rung.attention,
            "pooling": trial.pooling,
            "learning_rate": trial.learning_rate,
            "epochs": trial.epochs,
            **{name: _rounded(name, value) for name, value in self.answers.figures.items()},
            "below_best": round(self.compared.below, 4),
            "below_best_error": round(self.compared.error, 4),
            "trained_parameters": self.trained,
            "state_mib": round(self.trained * STATE_BYTES / (1 << 20), 2),
            "gflop": round(self.gflop, 1),
            "step_work": round(self.step_work, 4),
            "job_work": round(self.job_work, 4),
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen, every rung that was tried on all examples from the cheapest up, and what was looked at."""

    chosen: Row
    best: Row
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]
    examples: int
    held_out: int
    seconds: float

    @property
    def reason(self) -> str:
        """Return why, in one sentence."""
        name, chosen = self.chosen.trial.rung.name, self.chosen
        if chosen is self.best:
            return f"{name} is the best, and no cheaper rung comes within one standard error of it"
        return (
            f"{name} is the cheapest rung that is not measurably worse than the best ({self.best.trial.rung.name}): "
            f"{chosen.answers.task.score_title} is {chosen.compared.below:.3f} lower, and one standard error of that "
            f"is {chosen.compared.error:.3f}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document that travels with a bundle."""
        return {
            "chosen": self.chosen.to_json(),
            "reason": self.reason,
            "score": next(iter(self.chosen.answers.figures)),
            "score_title": self.chosen.answers.task.score_title,
            "rows": [row.to_json() for row in self.rows],
            "left_out": list(self.left_out),
            "examples": self.examples,
            "held_out": self.held_out,
            "seconds": round(self.seconds, 1),
        }


def as_table(rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> str:
    """Return rows as a table for people, the chosen one marked.

    Work is a run's, relative to full fine-tuning; GFLOP are what a device computes in it, the state is trained numbers,
    gradients and moments in float32. `board, s >=` is what it takes at least on the board that was given.
    """
    on_board = "board_seconds" in chosen
    told = [name for name in chosen if name in FIGURES]
    columns = " ".join(f"{FIGURES[name].column:>{_width(name)}}" for name in told)
    names = f"  {'rung':<14} {'pooling':<7} {columns} {'below best':>15} "
    lines = [f"{names}{'work':>6} {'a step':>6} {'GFLOP':>9} {'state, MiB':>10}" + f" {'board, s >=':>11}" * on_board]
    for row in rows:
        mark = "*" if row == chosen else " "
        below = f"{row['below_best']:.3f} +- {row['below_best_error']:.3f}"
        figures = " ".join(f"{FIGURES[name].shown(row[name]):>{_width(name)}}" for name in told)
        lines.append(
            f"{mark} {row['rung']:<14} {row['pooling']:<7} {figures} {below:>15} "
            f"{row['job_work']:>6.3f} {row['step_work']:>6.3f} {row['gflop']:>9,.0f} {row['state_mib']:>10.1f}"
            + (f" {row['board_seconds']:>11,.0f}" if on_board else "")
        )
    return "\n".join(lines)


def _rounded(name: str, value: float) -> float:
    return FIGURES[name].rounded(value, 4) if name in FIGURES else round(value, 4)


def _width(name: str) -> int:
    return max(6, len(FIGURES[name].column))
