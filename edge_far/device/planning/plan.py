"""Decides before anything runs whether training fits the budget, and how: step graph and micro-batch for each length.

    peak = runtime + data + parameters + gradients + optimiser + constants + embeddings + activations(rows, length)

Activations come from the bundle's polynomials (compile/memory/liveness.py); everything else is counted or measured.
A batch is cut into micro-batches whose activations fit what the rest leaves; gradients add up, so the result is the
same step. Of the step graphs and micro-batches that fit, the plan takes the quickest by the machine's cost model
(step_times.py); without one, the largest micro-batch of the plain step, or where not even one example of it fits, of a
leaner one.
Evaluation takes as many tokens at a time as fit the same room.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from edge_far.bundles.manifest import GraphInfo, Manifest
from edge_far.device.board.memory import MIB
from edge_far.device.engine.backend import ALONE, FillWidth
from edge_far.device.evaluation import TOKENS_PER_BATCH
from edge_far.device.optimizers.registry import DEFAULT_OPTIMIZER
from edge_far.device.planning import parts
from edge_far.errors import BudgetError, BundleError
from edge_far.texts.batches import padded_length
from edge_far.texts.encode import Encoded

__all__ = ["Choice", "Plan", "Shapes", "StepSeconds", "make_plan", "shapes_of"]

PLAIN = "step"  # the step graph of a length that names none
# Kept free between the predicted peak and the budget.
RESERVE = 0.03
# Added to the smallest budget that is named: the measured runtime differs a little from one start to the next.
MEASURED_SLACK_MIB = 2.0
# Predicted times that differ by less are taken as equal.
NEARLY_EQUAL = 1.05


@dataclass(frozen=True)
class Shapes:
    """What the data needs: the padded lengths that occur (ascending), and the batch size."""

    lengths: tuple[int, ...]
    batch_size: int
    evaluation_lengths: tuple[int, ...] = ()

    @property
    def longest(self) -> int:
        """The longest padded length of all."""
        return max(*self.lengths, *self.evaluation_lengths, 0)


class StepSeconds(Protocol):
    """Predicts times on this machine."""

    def micro_batch(self, variant: str, rows: int, length: int) -> float:
        """Return the seconds of one run of a step graph, its dropout masks included."""

    @property
    def update(self) -> float:
        """The seconds of one optimiser step without the graphs."""


@dataclass(frozen=True)
class Choice:
    """What a plan decides, and a resumed run keeps: examples of a micro-batch and name of the step graph by padded
    length (`step` where none is named), tokens of an evaluation batch."""

    rows: Mapping[int, int]
    evaluation_tokens: int
    variants: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The chosen plan; all sizes in MiB. `rows` maps each padded length to the examples of a micro-batch, `variants`
    to the step graph's name; `leanest` is the graph of the smallest peak, for a step-down.

    `fill_peak_mib` is that of the phase before training, where there is one, that computes the frozen blocks'
    activations with the width `fill`: the predicted peak is the larger of the two. `step_seconds` is the predicted time
    of a whole batch by padded length, None without a cost model.
    """

    rows: Mapping[int, int]
    variants: Mapping[int, str]
    leanest: str
    micro_batch: int
    accumulation: int
    batch_size: int
    longest: int
    evaluation_tokens: int
    budget_mib: float
    predicted_peak_mib: float
    optimizer: str
    parts_mib: Mapping[str, float]
    fill_peak_mib: float | None
    fill: FillWidth
    step_seconds: Mapping[int, float] | None

    @property
    def choice(self) -> Choice:
        """Return what a resumed run must keep."""
        return Choice(self.rows, self.evaluation_tokens, self.variants)

    def rows_for(self, length: int) -> int:
        """Return the micro-batch for a padded length (the next longer one that was planned)."""
        fitting = [self.rows[planned] for planned in sorted(self.rows) if planned >= length]
        return fitting[0] if fitting else min(self.rows.values())

    def variant_for(self, length: int) -> str:
        """Return the step graph for a padded length (that of the next longer one that was planned)."""
        fitting = [planned for planned in sorted(self.variants) if planned >= length]
        return self.variants[fitting[0]] if fitting else self.leanest

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON document."""
        document = asdict(self)
        document["rows"] = {str(length): rows for length, rows in self.rows.items()}
        document["variants"] = {str(length): variant for length, variant in self.variants.items()}
        if self.step_seconds is not None:
            document["step_seconds"] = {str(length): round(time, 4) for length, time in self.step_seconds.items()}
        document["parts_mib"] = {name: round(size, 1) for name, size in self.parts_mib.items()}
        if self.fill_peak_mib is not None:
            document["fill_peak_mib"] = round(self.fill_peak_mib, 1)
        document["predicted_peak_mib"] = round(self.predicted_peak_mib, 1)
        return document


def shapes_of(train: Encoded, batch_size: int, evaluation: Encoded | None = None) -> Shapes:
    """Return what planning must know of the data."""
    held_out = _lengths(evaluation) if evaluation is not None else ()
    return Shapes(_lengths(train), min(batch_size, len(train)), held_out)


def make_plan(
    manifest: Manifest,
    shapes: Shapes,
    budget_mib: float,
    runtime_mib: float,
    largest_micro_batch: int | None = None,
    *,
    loaded: bool = False,
    keep: Choice | None = None,
    optimizer: str = DEFAULT_OPTIMIZER,
    only_plain: bool = False,
    seconds: StepSeconds | None = None,
    cached: bool = True,
    threads: int = 1,
) -> Plan:
    """Choose step graphs and micro-batches that fit `budget_mib`, the quickest by `seconds`.

    `runtime_mib` is the resident set of the process before the session is made, data included, and with `loaded`
    the parameters too. Raises BudgetError with the smallest budget that would do, and with the optimisers that would
    fit. `keep` is the choice of a run that is resumed: it is described as it is, whether it fits or not. `only_plain`
    is for an engine with one step graph. Where the bundle has a prefix, `cached` says that all its activations are kept
    on disk, so that it is not in memory while training. Where there is room, each of `threads` computes texts before.
    """
    graphs = manifest.portable.steps[: 1 if only_plain else None]
    steps = {step.name: step for step in graphs}
    if loaded:
        runtime_mib -= manifest.trained_parameters * 4 / MIB
    fixed = parts.fixed_parts(manifest, runtime_mib, optimizer)
    prefix, fill_peak, fill = manifest.portable.prefix, None, ALONE
    if prefix is not None:
        needed = parts.prefix_mib(prefix, shapes.longest)
        fill_peak = fixed["runtime"] + sum(needed.values())
        if not cached:
            fixed["prefix"] = sum(needed.values())
    base = sum(fixed.values())
    if keep is None:
        limit = min(largest_micro_batch or shapes.batch_size, shapes.batch_size)
        keep = _choose(manifest, graphs, shapes, limit, budget_mib * (1 - RESERVE) - base, seconds)
        if keep is None:
            saved = parts.saved_mib(manifest, optimizer)
            raise _no_plan(manifest, graphs, shapes, budget_mib, base, saved)
        if fill_peak is not None and fill_peak > budget_mib * (1 - RESERVE):
            raise _no_fill(budget_mib, fill_peak, shapes.longest)
    if prefix is not None and fill_peak is not None and cached:
        room = budget_mib * (1 - RESERVE) - fill_peak
        fill, more = parts.widest_fill(manifest.portable, prefix, shapes.longest, threads, room)
        fill_peak += more
    variants = {length: keep.variants.get(length, PLAIN) for length in keep.rows}
    longest = max(shapes.lengths)
    tokens = keep.evaluation_tokens
    worst = max(
        *(parts.activations_mib(_named(steps, variants[length]), rows, length) for length, rows in keep.rows.items()),
        *(parts.evaluation_mib(manifest, tokens, length) for length in shapes.evaluation_lengths),
        0.0,
    )
    micro_batch = keep.rows.get(longest) or min(keep.rows.values())
    return Plan(
        rows=keep.rows,
        variants=variants,
        leanest=_leanest(graphs, longest).name,
        micro_batch=micro_batch,
        accumulation=math.ceil(shapes.batch_size / micro_batch),
        batch_size=shapes.batch_size,
        longest=longest,
        evaluation_tokens=tokens,
        budget_mib=budget_mib,
        predicted_peak_mib=max(base + worst, fill_peak or 0.0),
        optimizer=optimizer,
        parts_mib={**fixed, "activations": worst},
        fill_peak_mib=fill_peak,
        fill=fill,
        step_seconds=None
        if seconds is None
        else {
            length: _batch_seconds(seconds, variants[length], rows, shapes.batch_size, length)
            for length, rows in keep.rows.items()
        },
    )


def _choose(
    manifest: Manifest,
    steps: Sequence[GraphInfo],
    shapes: Shapes,
    limit: int,
    room: float,
    seconds: StepSeconds | None,
) -> Choice | None:
    """Return what fits `room` MiB, or None where nothing does."""
    rows: dict[int, int] = {}
    variants: dict[int, str] = {}
    for length in shapes.lengths:
        options = [option for step in steps for option in _fitting(step, length, limit, room, shapes.batch_size)]
        if not options:
            return None
        variants[length], rows[length] = _quickest(options, shapes.batch_size, length, seconds)
    tokens = TOKENS_PER_BATCH
    while any(parts.evaluation_mib(manifest, tokens, length) > room for length in shapes.evaluation_lengths):
        if tokens <= min(shapes.evaluation_lengths):
            return None
        tokens //= 2
    return Choice(rows, tokens, variants)


def _fitting(step: GraphInfo, length: int, limit: int, room: float, batch_size: int) -> list[tuple[str, int]]:
    """Return the even micro-batches of a step graph that fit, largest first."""
    most = bisect_right(range(1, limit + 1), room, key=partial(parts.activations_mib, step, length=length))
    even = {_even(rows, batch_size) for rows in range(1, most + 1)}
    return [(step.name, rows) for rows in sorted(even, reverse=True)]


def _quickest(
    options: Sequence[tuple[str, int]], batch_size: int, length: int, seconds: StepSeconds | None
) -> tuple[str, int]:
    """Return step graph and micro-batch; of nearly equal ones the first: the plainest, then the largest."""
    if seconds is None:
        return options[0]
    times = [_batch_seconds(seconds, variant, rows, batch_size, length) for variant, rows in options]
    return next(option for option, time in zip(options, times, strict=True) if time <= NEARLY_EQUAL * min(times))


def _batch_seconds(seconds: StepSeconds, variant: str, rows: int, batch_size: int, length: int) -> float:
    full, rest = divmod(batch_size, rows)
    total = full * seconds.micro_batch(variant, rows, length) + seconds.update
    return total + (seconds.micro_batch(variant, rest, length) if rest else 0.0)


def _leanest(steps: Sequence[GraphInfo], length: int) -> GraphInfo:
    return min(steps, key=lambda step: parts.activations_mib(step, 1, length))


def _named(steps: Mapping[str, GraphInfo], name: str) -> GraphInfo:
    if name not in steps:
        raise BundleError(f"the bundle has no step graph {name!r}", hint="start a new run")
    return steps[name]


def _no_plan(
    manifest: Manifest,
    steps: Sequence[GraphInfo],
    shapes: Shapes,
    budget_mib: float,
    base: float,
    saved: Mapping[str, float],
) -> BudgetError:
    longest = max(shapes.lengths)
    smallest = max(
        *(parts.activations_mib(_leanest(steps, length), 1, length) for length in shapes.lengths),
        *(parts.evaluation_mib(manifest, 1, length) for length in shapes.evaluation_lengths),
        0.0,
    )
    needed = _budget_for(base + smallest)
    return BudgetError(
        f"training needs at least {needed} MiB, the budget is {budget_mib:g} MiB",
        needed_mib=needed,
        where="memory.budget_mib",
        hint=f"raise the budget to {needed}, {_shorter(longest)}or export {_less(manifest)}"
        + _cheaper({name: base + smallest - less for name, less in saved.items()}, budget_mib, needed),
    )


def _no_fill(budget_mib: float, fill_peak: float, longest: int) -> BudgetError:
    needed = _budget_for(fill_peak)
    return BudgetError(
        f"computing the frozen blocks' activations needs at least {needed} MiB, the budget is {budget_mib:g} MiB",
        needed_mib=needed,
        where="memory.budget_mib",
        hint=f"raise the budget to {needed}, {_shorter(longest)}or export with another --method",
    )


def _less(manifest: Manifest) -> str:
    """Return what to export so that less trains."""
    return (
        "a smaller model" if manifest.selection.rung == "head" else "with a smaller --retention or with --method head"
    )


def _shorter(longest: int) -> str:
    return f"lower --max-seq-len below {longest}, " if longest > padded_length(1) else ""


def _budget_for(peak_mib: float) -> int:
    return math.ceil((peak_mib + MEASURED_SLACK_MIB) / (1 - RESERVE))


def _cheaper(peaks_mib: Mapping[str, float], budget_mib: float, needed: int) -> str:
    """Return which optimiser fits the budget, of those whose smallest plans have these peaks; or what the least needs.

    Empty where that is no less than the `needed` MiB of the optimiser that was asked for. Never chosen by itself:
    another optimiser is another result.
    """
    for name, peak in peaks_mib.items():
        if peak <= budget_mib * (1 - RESERVE):
            return f"; --optimizer {name} would fit: predicted {peak:.0f} MiB for the smallest plan"
    if not peaks_mib:
        return ""
    least = min(peaks_mib, key=lambda name: peaks_mib[name])
    budget = _budget_for(peaks_mib[least])
    return f"; with --optimizer {least} a budget of {budget} would do" if budget < needed else ""


def _lengths(encoded: Encoded) -> tuple[int, ...]:
    found = {min(padded_length(int(length)), encoded.max_seq_len) for length in np.unique(encoded.lengths)}
    return tuple(sorted(found))


def _even(rows: int, batch_size: int) -> int:
    """Return the smallest micro-batch that needs no more steps than `rows`: 16 as 4 x 4, not 5 + 5 + 5 + 1."""
    return math.ceil(batch_size / math.ceil(batch_size / rows))
