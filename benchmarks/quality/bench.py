"""One data set and one model: trains a method with a seed and a rate, and measures it on validation and test data."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.methods import AUTO, PROBE, Method
from edge_far.choice.frozen import frozen_outputs
from edge_far.choice.held_out import part_of
from edge_far.choice.linear_fit import LinearFit, choose_strength
from edge_far.choice.rungs import default_rungs
from edge_far.choice.search import ChoiceSettings, choose
from edge_far.choice.trials import Trial, Trials
from edge_far.compile.export_settings import usual_learning_rate
from edge_far.compile.forward.trace import takes_token_types
from edge_far.compile.ladder import rates_to_try
from edge_far.console import Console
from edge_far.far.method import cut_of
from edge_far.far.nodes import block_paths
from edge_far.models.source import load_source
from edge_far.tasks.training_data import read_training_data
from edge_far.texts.data import Example, read_examples
from edge_far.texts.encode import Encoder

__all__ = ["Bench"]

BATCH = 32
PRIMING, RETENTION = 0.01, 0.1
SUFFIXES = (".jsonl", ".json", ".tsv", ".csv", ".conll")


class Bench:
    """Texts of train, valid and test of a directory, encoded, and what the frozen model makes of them.

    Without a validation file a tenth of the training data is held out. `most` cuts the training data.
    """

    def __init__(self, model: str, data: Path, pooling: str, length: int, most: int | None, epochs: int) -> None:
        self.data, self.epochs = data, epochs
        training = read_training_data(_file(data, "train"))
        self.task = training.task
        parts = [training.examples, *(self._others(data, name) for name in ("valid", "test"))]
        self.source = load_source(
            model,
            self.task.labels,
            0,
            pooling=pooling,
            outputs=self.task.outputs,
            problem_type=self.task.problem_type,
            head_class=self.task.head_class,
        )
        self.source.model.to("cuda" if torch.cuda.is_available() else "cpu")
        encoder = Encoder(self.source.tokenizer, length, token_types=takes_token_types(self.source.architecture))
        self.encoded = encoder.encode([example for part in parts for example in part], self.task.targets)
        owners = self.encoded.examples if self.encoded.examples is not None else np.arange(len(self.encoded))
        ends = np.cumsum([0, *map(len, parts)])
        train, self.valid, self.test = (
            np.flatnonzero((owners >= a) & (owners < b)) for a, b in itertools.pairwise(ends)
        )
        strata = self.task.strata(self.encoded.targets_of(np.arange(len(self.encoded))))
        if most is not None:
            train = part_of(train, strata, most, 0)
        if not len(self.valid):
            rest = part_of(train, strata, len(train) * 9 // 10, 0)
            self.valid, train = np.setdiff1d(train, rest), rest
        self.train, self.blocks = train, len(block_paths(self.source.model))
        ladder = {cut_of(rung.method, self.blocks) for rung in default_rungs(self.blocks, RETENTION)}  # of `auto`
        cuts = ladder | set(range(max(1, self.blocks - 3), self.blocks + 1))
        self.fits: dict[str, LinearFit] = {}
        self.frozen = frozen_outputs(self.source.model, self.encoded, sorted(cuts), Console(quiet=True))

    def run(self, method: Method, seed: int, rate: float) -> dict[str, Any]:
        """Train and measure; return a document."""
        started = time.monotonic()
        asked = np.concatenate([self.valid, self.test])
        told: dict[str, Any] = {}
        if method.name == PROBE:
            vectors, targets = self.frozen.head_reads(self.encoded, asked, self.source.pooling)
            if len(vectors) < len(asked):  # of tokens: as many texts at a time as it takes
                said = self._probe_in_parts(asked)
            else:
                said = self.task.said(self._fit().logits(vectors), targets)
        else:
            trial = Trial(method.rung, self.source.pooling, rate, self.epochs, method.fitted)
            if method.name == AUTO:
                chosen = self._choose(seed)
                trial, told = chosen.chosen.trial, {"choice": chosen.to_json()["chosen"], "reason": chosen.reason}
            heads = {trial.pooling: self._fit(trial.pooling)} if trial.fitted else {}
            trials = Trials(self.source.model, self.encoded, self.frozen, BATCH, seed, True, PRIMING, heads, self.task)
            answer = trials.run(trial, self.train, asked, lambda _: None, method.prepare)
            said, told = answer.predictions, told | {"trained": answer.trained}
        count = len(self.valid)
        valid = self.task.score(self.encoded.targets_of(self.valid), said[:count])
        figures = self.task.score_figures(self.encoded.targets_of(self.test), said[count:])
        seconds = round(time.monotonic() - started, 1)
        return {"valid": valid, "figures": figures, "examples": len(self.train), "seconds": seconds, **told}

    def _fit(self, pooling: str | None = None) -> LinearFit:
        pooling = pooling or self.source.pooling
        if pooling not in self.fits:
            read = self.frozen.head_reads(self.encoded, self.train, pooling)
            self.fits[pooling] = choose_strength(*read, self.task, 0)
        return self.fits[pooling]

    def _probe_in_parts(self, asked: np.ndarray) -> np.ndarray:
        fit, found = self._fit(), self.task.no_answers(self.encoded.targets_of(asked))
        for start in range(0, len(asked), 64):
            rows = asked[start : start + 64]
            vectors, targets = self.frozen.head_reads(self.encoded, rows, "none")
            said = self.task.said(fit.logits(vectors), targets)
            part = found[start : start + 64]
            part[:, : said.shape[1]] = said
        return found

    def _choose(self, seed: int) -> Any:
        usual = self.source.pooling
        poolings = (usual,) if usual == "none" else (usual, *({"cls", "mean"} - {usual}))
        others = set(range(len(self.encoded))) - set(self.train.tolist())
        owners = self.encoded.examples
        if owners is not None:
            others = set(owners.tolist()) - set(owners[self.train].tolist())
        rates = rates_to_try(usual_learning_rate(self.source))
        settings = ChoiceSettings(poolings, *rates, RETENTION, "far", self.epochs, BATCH, seed, True, PRIMING)
        return choose(self.source.model, self.encoded.without(others), self.task, settings, Console(quiet=True))

    def _others(self, data: Path, name: str) -> list[Example]:
        path = _file(data, name)
        return read_examples(path, labels=self.task.form) if path.exists() else []


def _file(data: Path, name: str) -> Path:
    return next((path for suffix in SUFFIXES if (path := data / f"{name}{suffix}").exists()), data / f"{name}.jsonl")
