"""Decides whether a candidate may be released, from the answers of both models to the same held-out examples.

A pure function of arrays: no file, no clock, no model. There are two comparisons, and both must be passed:

- the device's held-out examples, against the current release: the accuracy is not lower, and the lower confidence bound
  of the paired difference is above minus the tolerance;
- the base (replay) set, where there is one, against the **factory** release: the lower confidence bound is above minus
  the tolerance. The factory release stays the same, so a small loss each night cannot add up.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_far.daemon.gate.paired import (
    acceptance_probability,
    accepts,
    detectable_loss,
    lower_bound,
    smallest_sample,
)
from edge_far.errors import DataError

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
    """Both models' answers: logits [N, C] or classes [N]; `labels` int [N], -1 where unknown."""

    labels: np.ndarray
    candidate: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Figures of one paired comparison; accuracies, bounds and probabilities are shares of 1.

    `detectable_loss` is the smallest true loss that would have been refused with probability 0.8, and
    `accepted_if_equal` the probability of passing for a candidate that is as good as the reference, both for
    the share of discordant examples that was seen.
    """

    examples: int
    candidate_accuracy: float
    reference_accuracy: float
    candidate_macro_f1: float
    reference_macro_f1: float
    gains: int
    losses: int
    difference: float
    lower_bound: float
    tolerance: float
    confidence: float
    detectable_loss: float
    accepted_if_equal: float


@dataclass(frozen=True)
class Decision:
    """Whether to release, with reasons for people; `device` or `base` is None where not compared."""

    accepted: bool
    reasons: tuple[str, ...]
    device: Comparison | None
    base: Comparison | None

    def as_document(self) -> dict[str, Any]:
        """Return the decision as JSON-able data."""
        return dataclasses.asdict(self) | {"reasons": list(self.reasons)}


def decide(device: Answers, base: Answers | None = None, settings: GateSettings | None = None) -> Decision:
    """Return the decision; `device.reference` is the current release, `base.reference` the factory's.

    Raises DataError for arrays that do not belong together.
    """
    settings = settings or GateSettings()
    refusals: list[str] = []
    notes: list[str] = []
    device_figures = _compare("device", device, settings, settings.tolerance, refusals, superior=True)
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
    labels, candidate, reference, finite = _checked(answers)
    n = len(labels)
    needed = max(settings.min_examples, smallest_sample(tolerance, settings.confidence))
    if not finite:
        refusals.append(f"{name}: the candidate's output holds NaN or infinity")
        return None
    if n < needed:
        refusals.append(
            f"{name}: {n} held-out examples are too few; from {needed} on a model can pass "
            f"(tolerance {tolerance:.1%}, confidence {settings.confidence:.0%})"
        )
        return None
    right, was_right = candidate == labels, reference == labels
    gains, losses = int((right & ~was_right).sum()), int((was_right & ~right).sum())
    confidence = settings.confidence
    discordant = (gains + losses) / n
    figures = Comparison(
        examples=n,
        candidate_accuracy=float(right.mean()),
        reference_accuracy=float(was_right.mean()),
        candidate_macro_f1=_macro_f1(labels, candidate),
        reference_macro_f1=_macro_f1(labels, reference),
        gains=gains,
        losses=losses,
        difference=(gains - losses) / n,
        lower_bound=lower_bound(n, gains, losses, confidence),
        tolerance=tolerance,
        confidence=confidence,
        detectable_loss=detectable_loss(n, discordant, tolerance, confidence, superior=superior),
        accepted_if_equal=acceptance_probability(
            n,
            gain=discordant / 2,
            loss=discordant / 2,
            tolerance=tolerance,
            confidence=confidence,
            superior=superior,
        ),
    )
    if len(np.unique(candidate)) == 1 and len(np.unique(labels)) > 1:
        refusals.append(f"{name}: the candidate gives every example the same class")
    if superior and gains < losses:
        refusals.append(
            f"{name}: accuracy {figures.candidate_accuracy:.2%} is below the current release's "
            f"{figures.reference_accuracy:.2%} ({gains} gains, {losses} losses of {n})"
        )
    elif not accepts(n, gains, losses, tolerance, confidence, superior=superior):
        refusals.append(
            f"{name}: the true difference may be as low as {figures.lower_bound:+.2%}, beyond the tolerance "
            f"of {tolerance:.2%} (observed {figures.difference:+.2%} on {n} examples)"
        )
    return figures


def _checked(answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return labels and classes of the labelled examples, and whether the candidate's output is finite."""
    labels = np.asarray(answers.labels)
    candidate, reference = np.asarray(answers.candidate), np.asarray(answers.reference)
    if labels.ndim != 1 or {len(candidate), len(reference)} != {len(labels)}:
        raise DataError("answers and labels do not belong to the same examples")
    if max(candidate.ndim, reference.ndim) > 2 or 0 in candidate.shape[1:] + reference.shape[1:]:
        raise DataError("answers must be classes [N] or logits [N, C]")
    known = labels >= 0
    finite = bool(np.isfinite(candidate[known]).all())
    return labels[known], _classes(candidate[known]), _classes(reference[known]), finite


def _classes(answers: np.ndarray) -> np.ndarray:
    return answers.argmax(axis=1) if answers.ndim == 2 else answers


def _macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean F1 over the classes that occur among the labels."""
    scores = []
    for value in np.unique(labels):
        hits = int(((labels == value) & (predicted == value)).sum())
        scores.append(2 * hits / (int((labels == value).sum()) + int((predicted == value).sum())))
    return float(np.mean(scores))


def _praise(figures: Comparison) -> str:
    return (
        f"device: accuracy {figures.candidate_accuracy:.2%}, was {figures.reference_accuracy:.2%} "
        f"({figures.gains} gains, {figures.losses} losses of {figures.examples}); "
        f"a true loss of {figures.detectable_loss:.1%} would have been refused 4 times in 5"
    )
