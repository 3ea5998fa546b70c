"""The quality of each rung of the ladder on real weights and data, in torch: a table with deviations over seeds.

    python benchmarks/ladder_quality.py --model DIR --data DIR [--seeds 0 1 2] [--rows top-2 far ...] [--workers 2]
        [--most N] [--out FILE]

DIR of the data holds train.jsonl, test.jsonl and, where there is one, valid.jsonl (else a tenth of the training data is
held out for it). Each row is trained as `edge-far choose` trains a trial, which is what a device computes in fp32: four
epochs, batches of 32, dropout above the cut, learners chosen by priming. The learning rate of a row is the one of two
that does best on the validation data with the first seed; the table has test data alone. `probe` is scikit-learn's
objective on the frozen model's outputs, its strength chosen on a tenth of the training data. `auto` is what
`edge-far choose` takes, trained on all. Runs on a GPU where torch sees one. Prints a line of JSON a run and the table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_far.choice.frozen import frozen_outputs
from edge_far.choice.held_out import part_of
from edge_far.choice.linear_fit import LinearFit, choose_strength
from edge_far.choice.rungs import Rung
from edge_far.choice.search import ChoiceSettings, choose
from edge_far.choice.trials import Trial, Trials
from edge_far.console import Console
from edge_far.models.source import load_source
from edge_far.tasks.classify import Classify
from edge_far.texts.data import Example, label_names, read_examples
from edge_far.texts.encode import Encoder

EPOCHS, BATCH, LENGTH = 4, 32, 64
RATES, FULL_RATES, HEAD_RATES = (3e-4, 1e-3), (1e-4, 3e-4), (3e-4, 3e-3)
HEADS = 1 / 12


@dataclass(frozen=True)
class Line:
    """A row of the table: a rung, its pooling, the learning rates to choose from, and how its head begins."""

    name: str
    rung: Rung | None
    pooling: str
    rates: tuple[float, ...] = RATES
    fitted: bool = False


def lines() -> list[Line]:
    """Return all rows, the longest first."""
    far, full = Rung("far"), Rung("full", retention=1.0)
    found = [Line(f"full, {pooling}", full, pooling, FULL_RATES) for pooling in ("mean", "cls")]
    found += [Line("auto", None, "mean")]
    found += [Line(f"far, {pooling}", far, pooling) for pooling in ("mean", "cls")]
    found += [
        Line("far, fitted head, mean", far, "mean", fitted=True),
        Line("far, heads, mean", far.by_heads(HEADS), "mean"),
        Line("random, mean", replace(far, selection="random"), "mean"),
        Line("random, heads, mean", replace(far, selection="random").by_heads(HEADS), "mean"),
        Line("frozen FFN, mean", replace(far, retention=0.0), "mean"),
    ]
    found += [Line(f"top-{count}, mean", Rung(f"top-{count}"), "mean") for count in (3, 2, 1)]
    found += [
        Line("top-2, heads, mean", Rung("top-2").by_heads(HEADS), "mean"),
        Line("top-2, fitted head, mean", Rung("top-2"), "mean", fitted=True),
        Line("top-2, cls", Rung("top-2"), "cls"),
        Line("top-3, cls", Rung("top-3"), "cls"),
    ]
    found += [Line(f"head, {pooling}", Rung("head"), pooling, HEAD_RATES, fitted=True) for pooling in ("mean", "cls")]
    return found + [Line(f"probe, {pooling}", None, pooling) for pooling in ("mean", "first token")]


class Bench:
    """One data set and one model, on this process's device."""

    def __init__(self, model: str, data: Path, most: int | None) -> None:
        parts = {name: _read(data / f"{name}.jsonl") for name in ("train", "valid", "test")}
        labels = label_names(str(example.label) for example in parts["train"])
        examples = [example for part in parts.values() for example in part]
        self.source = load_source(model, labels, 0)
        self.source.model.to("cuda" if torch.cuda.is_available() else "cpu")
        encoder = Encoder(self.source.tokenizer, LENGTH, token_types=self.source.architecture == "bert")
        self.encoded = encoder.encode(examples, labels)
        ends = np.cumsum([len(part) for part in parts.values()])
        train, self.valid, self.test = (
            np.arange(end - len(part), end) for end, part in zip(ends, parts.values(), strict=True)
        )
        if most is not None:
            train = part_of(train, self.encoded.labels, most, 0)
        if not len(self.valid):
            rest = part_of(train, self.encoded.labels, len(train) * 9 // 10, 0)
            self.valid, train = np.setdiff1d(train, rest), rest
        self.train, self.task = train, Classify(labels)
        self.frozen = frozen_outputs(self.source.model, self.encoded, (3, 4, 5), Console(quiet=True))

    def run(self, line: Line, seeds: list[int]) -> list[dict[str, Any]]:
        """Return a document a run."""
        started = time.monotonic()
        if line.name.startswith("probe"):
            vectors = self.frozen.mean if line.pooling == "mean" else self.frozen.first
            fit = self._fit(vectors)
            return [self._document(line, 0, fit.strength, self.task.said(fit.logits(vectors)), started)]
        if line.name == "auto":
            return [self._auto(line, seed) for seed in seeds]
        trial = Trial(line.rung or Rung("far"), line.pooling, line.rates[0], EPOCHS, line.fitted)
        tried = [self._trial(line, replace(trial, learning_rate=rate), seeds[0]) for rate in line.rates]
        best = max(tried, key=lambda one: one["valid"])
        for one in tried:
            one["counts"] = one is best
        return tried + [self._trial(line, replace(trial, learning_rate=best["rate"]), seed) for seed in seeds[1:]]

    def _trial(self, line: Line, trial: Trial, seed: int) -> dict[str, Any]:
        started = time.monotonic()
        fitted = [trial.pooling] if trial.fitted else []
        heads = {p: self._fit(self.frozen.mean if p == "mean" else self.frozen.head_input) for p in fitted}
        trials = Trials(self.source.model, self.encoded, self.frozen, BATCH, seed, True, 0.01, heads, self.task)
        asked = np.concatenate([self.valid, self.test])
        answer = trials.run(trial, self.train, asked, lambda _: None)
        said = np.full(len(self.encoded), -1)
        said[asked] = answer.predictions
        return self._document(line, seed, trial.learning_rate, said, started) | {"trained": answer.trained}

    def _fit(self, vectors: np.ndarray) -> LinearFit:
        return choose_strength(vectors[self.train], self.encoded.labels[self.train], self.task, 0)

    def _auto(self, line: Line, seed: int) -> dict[str, Any]:
        started = time.monotonic()
        chosen = choose(
            self.source.model,
            _only(self.encoded, self.train),
            self.task,
            ChoiceSettings(("mean", "cls"), RATES, HEAD_RATES, 0.1, "far", EPOCHS, BATCH, seed, True, 0.01),
            Console(quiet=True),
        )
        took = time.monotonic() - started
        document = self._trial(line, chosen.chosen.trial, seed)
        return document | {"choice": chosen.to_json(), "choice_seconds": took}

    def _document(self, line: Line, seed: int, rate: float, said: np.ndarray, started: float) -> dict[str, Any]:
        truth = self.encoded.labels
        return {
            "row": line.name,
            "seed": seed,
            "rate": rate,
            "valid": float((said[self.valid] == truth[self.valid]).mean()),
            "accuracy": float((said[self.test] == truth[self.test]).mean()),
            "matthews": self.task.score(truth[self.test], said[self.test]),
            "counts": True,
            "seconds": time.monotonic() - started,
        }


def main() -> int:
    """Run all rows in several processes; print a line a run and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=[line.name for line in lines()], metavar="ROW")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--most", type=int, help="examples to train on, the same for all rows")
    parser.add_argument("--out", type=Path, help="file that every run's line is added to")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    names = [line.name for line in lines() if options.rows is None or line.name in options.rows]
    tasks, answers = context.Queue(), context.Queue()
    for name in [*names, *[None] * options.workers]:
        tasks.put(name)
    setting = (options.model, options.data, options.most, options.seeds)
    workers = [context.Process(target=_work, args=(*setting, tasks, answers)) for _ in range(options.workers)]
    for worker in workers:
        worker.start()
    found: list[dict[str, Any]] = []
    for _ in names:
        for document in answers.get():
            found.append(document)
            line = json.dumps({"data": options.data.name, **document})
            print(line, flush=True)
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
    for worker in workers:
        worker.join()
    print(as_table(found))
    return 0


def _work(model: str, data: Path, most: int | None, seeds: list[int], tasks: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    bench = Bench(model, data, most)
    rows = {line.name: line for line in lines()}
    while (name := tasks.get()) is not None:
        try:
            answers.put(bench.run(rows[name], seeds))
        except Exception as error:  # one row less, the others go on
            answers.put([{"row": name, "error": f"{type(error).__name__}: {error}", "counts": False}])


def as_table(found: list[dict[str, Any]]) -> str:
    """Return the means and deviations over seeds of the runs that count."""
    text = ["| row | rate | trained | accuracy % | MCC | runs |", "|---|---:|---:|---:|---:|---:|"]
    for line in lines():
        own = [one for one in found if one["row"] == line.name and one["counts"]]
        if own:
            rates = sorted({f"{one['rate']:g}" for one in own})
            cells = [_spread([100 * one["accuracy"] for one in own], 2), _spread([one["matthews"] for one in own], 3)]
            trained = f"{own[0]['trained']:,}" if "trained" in own[0] else ""
            text.append(f"| {line.name} | {', '.join(rates)} | {trained} | {' | '.join(cells)} | {len(own)} |")
    return "\n".join(text)


def _spread(values: list[float], digits: int) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def _only(encoded: Any, rows: np.ndarray) -> Any:
    return encoded.without(set(range(len(encoded))) - set(rows.tolist()))


def _read(path: Path) -> list[Example]:
    return read_examples(path, labels=None) if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
