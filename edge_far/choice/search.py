"""The whole of a choice, top to bottom: compute once, try every rung on a part, the good ones on all, decide.

Two rounds of successive halving: every rung with every pooling and learning rate on a quarter of the examples, then the
best of each rung on all of them. The work is bounded (budget.py); what no longer fits is left out, and said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from edge_far.choice.budget import Budget, plan_budget
from edge_far.choice.frozen import FrozenOutputs, frozen_outputs
from edge_far.choice.held_out import Fold, folds_of, part_of
from edge_far.choice.linear_fit import LinearFit, choose_strength
from edge_far.choice.outcome import Choice, Row
from edge_far.choice.rungs import Geometry, Rung, default_rungs, job_flops, job_work, step_flops
from edge_far.choice.trials import Trial, Trials
from edge_far.choice.verdict import Answers, Compared, cheapest_good, compare
from edge_far.console import Console
from edge_far.far.heads import attention_share
from edge_far.far.method import cut_of
from edge_far.far.nodes import architecture_of, block_paths, find_ffn_blocks
from edge_far.far.prime import priming_steps
from edge_far.tasks.interface import Task
from edge_far.texts.encode import Encoded

__all__ = ["ChoiceSettings", "choose"]


MOST_STRETCH = 10 / 3  # of a learning rate
MOST_PRIMING = 0.25  # of a trial's steps: beyond it, its learners are random ones


@dataclass(frozen=True)
class ChoiceSettings:
    """How to choose; `poolings` are those that the model allows, the usual one first.

    `rates` are the learning rates to try, the usual one first, `head_rates` those of the head alone; `own_head` says
    that the model's head is kept as it is; `minutes` lowers the work from that of three full fine-tunings.
    """

    poolings: tuple[str, ...]
    rates: tuple[float, ...]
    head_rates: tuple[float, ...]
    retention: float
    selection: str
    epochs: int
    batch_size: int
    seed: int
    dropout: bool
    priming: float
    own_head: bool = False
    minutes: float | None = None


def choose(model: nn.Module, encoded: Encoded, task: Task, settings: ChoiceSettings, console: Console) -> Choice:
    """Try the ladder's rungs on the examples and return the cheapest that is not measurably worse than the best.

    `model` is as it was loaded, and stays as it is; `encoded` has one of the task's targets for every text.
    """
    started = time.monotonic()
    shape = _geometry_of(model, encoded)
    rungs = default_rungs(shape.blocks, settings.retention, settings.selection)
    strata = task.strata(encoded.targets_of(np.arange(len(encoded))))
    owners = np.arange(len(encoded)) if encoded.examples is None else encoded.examples
    parts = folds_of(owners, strata, settings.seed)
    trials = {rung: _trials_of(rung, settings) for rung in rungs}
    budget = plan_budget(model, encoded, shape, parts, trials, settings.minutes, settings.batch_size, task.info.loss)
    console.info(f"choosing among {len(rungs)} rungs: {budget.told}")
    parts = [replace(part, train=part_of(part.train, strata, budget.examples, settings.seed)) for part in parts]
    parts = parts[: budget.folds]
    read = np.unique(np.concatenate([indices for part in parts for indices in (part.train, part.held_out)]))
    cuts = sorted({cut_of(rung.method, shape.blocks) for rung in rungs})
    frozen = frozen_outputs(model, encoded, cuts, console, read)
    search = _Search(model, encoded, task, frozen, settings, shape, parts, budget, strata)
    upper = [trial for rung in rungs[1:] for trial in budget.trials[rung]]
    upper = search.with_pooling_of_the_head(upper) if budget.single else search.screen(upper, console)
    found, left_out = search.confirm([*trials[rungs[0]], *upper], console)
    rows = [*found, *search.by_heads(found[cheapest_good(*_scored(found))[0]].trial, console)]
    chosen, best, compared = cheapest_good(*_scored(rows))
    told = [replace(row, compared=one) for row, one in zip(rows, compared, strict=True)]
    return Choice(
        chosen=told[chosen],
        best=told[best],
        rows=tuple(sorted(told, key=lambda row: row.job_work)),
        left_out=left_out,
        examples=len(parts[0].train),
        held_out=len(told[0].answers.truth),
        seconds=time.monotonic() - started,
    )


def _geometry_of(model: nn.Module, encoded: Encoded) -> Geometry:
    """Return the shape by which work is counted; `tokens` is the mean length of a text."""
    block = find_ffn_blocks(model)[0]
    config: Any = model.config
    return Geometry(
        len(block_paths(model)),
        int(config.hidden_size),
        block.units,
        int(config.num_labels),
        float(encoded.lengths.mean()),
        of_tokens=encoded.nothing is not None,
        inner=block.width,
    )


def _fit(frozen: FrozenOutputs, encoded: Encoded, rows: np.ndarray, pooling: str, task: Task, seed: int) -> LinearFit:
    return choose_strength(*frozen.head_reads(encoded, rows, pooling), task, seed)


def _trials_of(rung: Rung, settings: ChoiceSettings) -> list[Trial]:
    head = rung.method == "head"
    fitted = head and not settings.own_head
    return [
        Trial(rung, pooling, rate, settings.epochs, fitted)
        for pooling in settings.poolings
        for rate in (settings.head_rates if head else settings.rates)
    ]


class _Search:
    """The two rounds; `parts` are the folds, of which the first round uses one."""

    def __init__(
        self,
        model: nn.Module,
        encoded: Encoded,
        task: Task,
        frozen: FrozenOutputs,
        settings: ChoiceSettings,
        shape: Geometry,
        parts: Sequence[Fold],
        budget: Budget,
        strata: np.ndarray,
    ) -> None:
        self.encoded, self.task, self.settings, self.shape = encoded, task, settings, shape
        self.parts, self.budget, self.strata = parts, budget, strata
        fitted = [] if settings.own_head else settings.poolings
        self.trials = [
            Trials(
                model,
                encoded,
                frozen,
                settings.batch_size,
                settings.seed,
                settings.dropout,
                settings.priming,
                {pooling: _fit(frozen, encoded, part.train, pooling, task, settings.seed) for pooling in fitted},
                task,
            )
            for part in parts
        ]

    def with_pooling_of_the_head(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials with the pooling on which a linear fit of the head does best on the held-out examples."""
        part, heads = self.parts[0], self.trials[0].heads
        if len(heads) < 2:
            return list(trials)
        scores = {}
        for pooling, fit in heads.items():
            vectors, truth = self.trials[0].frozen.head_reads(self.encoded, part.held_out, pooling)
            scores[pooling] = self.task.score(truth, self.task.said(fit.logits(vectors), truth))
        return [replace(trial, pooling=max(scores, key=lambda name: scores[name])) for trial in trials]

    def screen(self, trials: Sequence[Trial], console: Console) -> list[Trial]:
        """Try all on a quarter of the examples; return each rung's best, the likeliest first, then other poolings.

        Another learning rate than the usual one must be measurably better. A rung's other pooling stays as well where
        it is not measurably worse.
        """
        part, trainer = self.parts[0], self.trials[0]
        examples = part_of(part.train, self.strata, self.budget.screened, self.settings.seed)
        truth = self.encoded.targets_of(part.held_out)
        found: dict[Trial, Answers] = {}
        total = sum(trainer.steps(trial, len(examples)) for trial in trials)
        with console.progress(total, f"round 1, {len(examples)} examples") as progress:
            steps = _Steps(progress)
            for trial in trials:
                steps.text = f"{trial.rung.name}, {trial.pooling}, rate {trial.learning_rate:g}"
                answer = trainer.run(_quick(trial), examples, part.held_out, steps.tell)
                found[trial] = Answers(self.task, truth, answer.predictions)
                console.detail(f"round 1: {steps.text}: {found[trial].score:.3f}")
        best, others = [], []
        for rung in dict.fromkeys(trial.rung for trial in found):
            own = [
                _usual([t for t in found if t.rung == rung and t.pooling == p], found) for p in self.settings.poolings
            ]
            own.sort(key=lambda trial: -found[trial].score)
            best.append(own[0])
            others += [trial for trial in own[1:] if compare(found[trial], found[own[0]]).good]
        return [t for group in (best, others) for t in sorted(group, key=lambda trial: -found[trial].score)]

    def confirm(self, trials: Sequence[Trial], console: Console) -> tuple[list[Row], tuple[str, ...]]:
        """Try on all examples, in order, while the work lasts; return each rung's best and what was left out."""
        rows: list[Row] = []
        left_out: list[str] = []
        total = sum(self._steps(trial) for trial in trials)
        with console.progress(total, f"round 2, {len(self.parts[0].train)} examples") as progress:
            steps = _Steps(progress)
            for trial in trials:
                steps.text = f"{trial.rung.name}, {trial.pooling}"
                if any(row.trial.rung.method != "head" for row in rows) and not self.budget.allows(trial):
                    left_out.append(f"{trial.rung.name}, {trial.pooling}")
                    steps.tell(self._steps(trial))
                    continue
                rows.append(self._row(trial, steps))
                console.detail(f"round 2: {steps.text}: {rows[-1].answers.score:.3f}")
        best = [
            max((row for row in rows if row.trial.rung == rung), key=lambda row: row.answers.score)
            for rung in dict.fromkeys(row.trial.rung for row in rows)
        ]
        return best, tuple(left_out)

    def by_heads(self, trial: Trial, console: Console) -> list[Row]:
        """Try the chosen rung with a part of its attention heads alone; no row where there is nothing to try."""
        model = self.trials[0].model
        heads = int(model.config.num_attention_heads)
        share = attention_share(None, self.settings.retention, heads)
        smaller = replace(trial, rung=trial.rung.by_heads(share))
        unfit = trial.rung.method == "head" or not 0 < share < 1 or not architecture_of(model).heads_part
        if unfit or not self.budget.allows(smaller):
            return []
        with console.progress(self._steps(smaller), "the same with a part of the heads") as progress:
            return [self._row(smaller, _Steps(progress))]

    def _short(self, trial: Trial) -> Trial:
        """Return a trial on few examples as it stands for a run on all: the fewer steps, the larger the rate.

        By the square root, which is Adam's rule for batches of other sizes (Malladi et al. 2022, arXiv 2205.10287).
        """
        stretch = min(MOST_STRETCH, (len(self.encoded) / len(self.parts[0].train)) ** 0.5)
        return replace(_quick(trial), learning_rate=trial.learning_rate * stretch)

    def _steps(self, trial: Trial) -> int:
        return sum(one.steps(trial, len(part.train)) for one, part in zip(self.trials, self.parts, strict=True))

    def _row(self, trial: Trial, steps: _Steps) -> Row:
        said, trained, seconds = [], 0, 0.0
        for part, trainer in zip(self.parts, self.trials, strict=True):
            shortened = self._short(trial) if self.budget.single else trial
            if priming_steps(0, 0.0) > MOST_PRIMING * trainer.steps(trial, len(part.train)):
                shortened = _quick(shortened)
            answer = trainer.run(shortened, part.train, part.held_out, steps.tell)
            said.append(answer.predictions)
            trained, seconds = answer.trained, seconds + answer.seconds
        self.budget.take(trial)
        truth = self.encoded.targets_of(np.concatenate([part.held_out for part in self.parts]))
        full = step_flops(Rung("full"), self.shape, trial.pooling)
        return Row(
            trial,
            Answers(self.task, truth, np.concatenate(said)),
            trained,
            seconds,
            step_flops(trial.rung, self.shape, trial.pooling) / full,
            job_work(trial.rung, self.shape, trial.pooling, trial.epochs, self.settings.epochs),
            len(self.encoded) * job_flops(trial.rung, self.shape, trial.pooling, trial.epochs) / 1e9,
            Compared(0.0, 0.0),
        )


def _scored(rows: Sequence[Row]) -> tuple[list[Answers], list[float]]:
    """Return what cheapest_good compares."""
    return [row.answers for row in rows], [row.job_work for row in rows]


def _quick(trial: Trial) -> Trial:
    """Return a trial without priming, which would cost as much again as few steps: its learners are random ones."""
    return replace(trial, rung=replace(trial.rung, selection="random"))


def _usual(trials: Sequence[Trial], found: Mapping[Trial, Answers]) -> Trial:
    """Return the first, which has the usual learning rate, unless another is measurably better."""
    best = max(trials, key=lambda trial: found[trial].score)
    return trials[0] if compare(found[trials[0]], found[best]).good else best


class _Steps:
    """Counts steps for a progress display."""

    def __init__(self, progress: Any) -> None:
        self.progress, self.done, self.text = progress, 0, ""

    def tell(self, steps: int) -> None:
        """Add steps that are done."""
        self.done += steps
        self.progress.update(self.done, self.text)
