"""Decides whether a candidate may be released, from the answers of both models to the same held-out examples.

A pure function of arrays: no file, no clock, no model. There are two comparisons, and both must be passed:

- the device's held-out examples, against the current release: the mean credit of an answer (tasks/; of one label a text
  the accuracy) is not lower, and the lower confidence bound of the paired difference is above minus the tolerance;
- the base (replay) set, where there is one, against the **factory** release: the lower confidence bound is above minus
  the tolerance. The factory release stays the same, so a small loss each night cannot add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edge_far.daemon.gate import bootstrap, paired
from edge_far.errors import DataError
from edge_far.tasks.figures import FIGURES
from edge_far.tasks.interface import Task
from edge_far.texts.encode import Encoded

__all__ = ["Answers", "Comparison", "Decision", "GateSettings", "decide"]


@dataclass(frozen=True)
class GateSettings:
    """What the gate asks for; tolerances and confidence are shares of 1, not percent."""

    confidence: float = 0.95
    tolerance: float = 0.05
    base_tolerance: float = 0.05
    min_examples: int = 50
    base_required: bool = False


@dataclass(frozen=True)
class Answers:
    """Both models' answers to the same examples: the task's targets, some of which may be unknown, and its logits.

    Where an example can be several rows (windows of a long text), `encoded` says whose they are.
    """

    task: Task
    targets: np.ndarray
    candidate: np.ndarray
    reference: np.ndarray
    encoded: Encoded | None = None

    def credits(self, logits: np.ndarray) -> np.ndarray:
        """Return what each example's answer earns."""
        known = self.known
        return self.task.credits(self.targets[known], logits[known], self.encoded, known)

    def figures(self, logits: np.ndarray) -> dict[str, float]:
        """Return the task's figures."""
        known = self.known
        evaluation = self.task.evaluation(self.encoded)
        evaluation.add(logits[known], self.targets[known], known)
        return dict(evaluation.result().figures)

    @cached_property
    def known(self) -> np.ndarray:
        """Return the rows that have a target, int64."""
        return np.flatnonzero(self.task.known(self.targets))


@dataclass(frozen=True)
class Comparison:
    """Figures of one paired comparison; bounds and probabilities are shares of 1, as the task's credits are.

    `score` names the mean credit among the figures of `candidate` and `reference`; `gains` and `losses` count the
    examples on which the candidate's answer earns more, or less. `detectable_loss` is the smallest true loss that would
    have been refused with probability 0.8, and `accepted_if_equal` the probability of passing for a candidate that is
    as good as the reference, both for the differences that were seen.
    """

    examples: int
    score: str
    candidate: Mapping[str, float]
    reference: Mapping[str, float]
    gains: int
    losses: int
    difference: float
    lower_bound: float
    tolerance: float
    confidence: float
    detectable_loss: float
    accepted_if_equal: float

    @property
    def scores(self) -> tuple[str, str]:
        """Return the mean credit of the candidate and of the reference, for people."""
        figure = FIGURES[self.score]
        return figure.shown(self.candidate[self.score]), figure.shown(self.reference[self.score])

    def as_document(self) -> dict[str, Any]:
        """Return the comparison as JSON-able data, each figure with its model's name before it."""
        values = {name: value for name, value in vars(self).items() if name not in ("candidate", "reference")}
        for model in ("candidate", "reference"):
            values |= {f"{model}_{name}": value for name, value in getattr(self, model).items()}
        return values


@dataclass(frozen=True)
class Decision:
    """Whether to release, with reasons for people; `device` or `base` is None where not compared."""

    accepted: bool
    reasons: tuple[str, ...]
    device: Comparison | None
    base: Comparison | None

    def as_document(self) -> dict[str, Any]:
        """Return the decision as JSON-able data."""
        return {
            "accepted": self.accepted,
            "reasons": list(self.reasons),
            "device": None if self.device is None else self.device.as_document(),
            "base": None if self.base is None else self.base.as_document(),
        }


def decide(
    device: Answers, base: Answers | None = None, settings: GateSettings | None = None, *, superior: bool = True
) -> Decision:
    """Return the decision; `device.reference` is the current release, `base.reference` the factory's.

    Without `superior` it is enough on the device's examples that the candidate is surely not worse by the tolerance.
    Raises DataError for arrays that do not belong together.
    """
    settings = settings or GateSettings()
    refusals: list[str] = []
    notes: list[str] = []
    device_figures = _compare("device", device, settings, settings.tolerance, refusals, superior=superior)
    base_figures = None
    if base is not None:
        base_figures = _compare("base", base, settings, settings.base_tolerance, refusals, superior=False)
    elif settings.base_required:
        refusals.append("base: there is no replay set to compare on, and the profile asks for one")
    else:
        notes.append("base: not compared, for there is no replay set; forgetting would go unseen")
    if device_figures is not None and not refusals:
        notes.insert(0, _praise(device_figures))
    return Decision(not refusals, tuple(refusals or notes), device_figures, base_figures)


def _compare(
    name: str,
    answers: Answers,
    settings: GateSettings,
    tolerance: float,
    refusals: list[str],
    *,
    superior: bool,
) -> Comparison | None:
    """Compare on one set; add to `refusals` what speaks against the candidate."""
    finite = _checked(answers)
    task, targets, candidate, reference = answers.task, answers.targets, answers.candidate, answers.reference
    had = answers.credits(reference)
    n = len(had)
    needed = max(settings.min_examples, paired.smallest_sample(tolerance, settings.confidence))
    if not finite:
        refusals.append(f"{name}: the candidate's output holds NaN or infinity")
        return None
    if n < needed:
        refusals.append(
            f"{name}: {n} held-out examples are too few; from {needed} on a model can pass "
            f"(tolerance {tolerance:.1%}, confidence {settings.confidence:.0%})"
        )
        return None
    earned = answers.credits(candidate)
    evidence = _evidence(earned - had, task.right_or_wrong, tolerance, settings.confidence, superior)
    figures = Comparison(
        examples=n,
        score=task.credit_name,
        candidate={task.credit_name: float(earned.mean()), **answers.figures(candidate)},
        reference={task.credit_name: float(had.mean()), **answers.figures(reference)},
        tolerance=tolerance,
        confidence=settings.confidence,
        **evidence,
    )
    if task.says_one_thing(targets[answers.known], candidate[answers.known]):
        refusals.append(f"{name}: the candidate gives every example the same answer")
    told = f"{figures.gains} gains, {figures.losses} losses of {n}"
    if superior and figures.difference < 0:
        now, was = figures.scores
        refusals.append(f"{name}: {FIGURES[figures.score].title} {now} is below the current release's {was} ({told})")
    elif figures.lower_bound <= -tolerance:
        refusals.append(
            f"{name}: the true difference may be as low as {figures.lower_bound:+.2%}, beyond the tolerance "
            f"of {tolerance:.2%} (observed {figures.difference:+.2%} on {n} examples)"
        )
    return figures


def _evidence(
    differences: np.ndarray, right_or_wrong: bool, tolerance: float, confidence: float, superior: bool
) -> dict[str, Any]:
    """Return what the differences of credits show: by Tango's interval of right and wrong, else by the bootstrap."""
    n, gains, losses = len(differences), int((differences > 0).sum()), int((differences < 0).sum())
    found: dict[str, Any] = {"gains": gains, "losses": losses}
    if right_or_wrong:
        share = (gains + losses) / n
        bound = paired.lower_bound(n, gains, losses, confidence)
        if not paired.accepts(n, gains, losses, tolerance, confidence, superior=False):
            bound = min(bound, -tolerance)  # the same test; bisection may end on the other side of its edge
        return found | {
            "difference": (gains - losses) / n,
            "lower_bound": bound,
            "detectable_loss": paired.detectable_loss(n, share, tolerance, confidence, superior=superior),
            "accepted_if_equal": paired.acceptance_probability(
                n, gain=share / 2, loss=share / 2, tolerance=tolerance, confidence=confidence, superior=superior
            ),
        }
    return found | {
        "difference": float(differences.mean()),
        "lower_bound": bootstrap.lower_bound(differences, confidence),
        "detectable_loss": bootstrap.detectable_loss(differences, tolerance, confidence, superior=superior),
        "accepted_if_equal": bootstrap.acceptance_probability(
            differences, 0.0, tolerance, confidence, superior=superior
        ),
    }


def _checked(answers: Answers) -> bool:
    """Return whether the candidate's answers are finite; raises DataError for arrays that do not belong together."""
    if {len(answers.candidate), len(answers.reference)} != {len(answers.targets)}:
        raise DataError("answers and labels do not belong to the same examples")
    shape = answers.task.info.logits_shape(*answers.targets.shape[:2])
    if {answers.candidate.shape, answers.reference.shape} != {shape}:
        raise DataError(f"answers must be logits {list(shape)}")
    return bool(np.isfinite(answers.candidate[answers.known]).all())


def _praise(figures: Comparison) -> str:
    now, was = figures.scores
    return (
        f"device: {FIGURES[figures.score].title} {now}, was {was} "
        f"({figures.gains} gains, {figures.losses} losses of {figures.examples}); "
        f"a true loss of {figures.detectable_loss:.1%} would have been refused 4 times in 5"
    )
