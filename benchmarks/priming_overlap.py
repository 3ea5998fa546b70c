"""How well priming's split-half overlap tells signal from noise, on CLINC150's in-scope training sentences.

For each number of steps: the overlap that `prime` reports; that of one run cut in two, which it does not use;
and, as the truth to compare with, that of two whole primings on differently shuffled data.

    python benchmarks/priming_overlap.py --model DIR --data clinc150/data_full.json
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from edge_far.console import Console
from edge_far.far.nodes import find_ffn_blocks
from edge_far.far.prime import PrimingResult, PrimingSettings, prime, top_overlap

BATCH, EPOCHS, RETENTION = 32, 4, 0.1


def main() -> None:
    """Print one table row a learning rate and number of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 25, 50, 100])
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-4, 3e-4])
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = json.loads(options.data.read_text(encoding="utf-8"))["train"]
    names = sorted({label for _, label in rows})
    labels = np.array([names.index(label) for _, label in rows])
    encodings = Tokenizer.from_file(str(options.model / "tokenizer.json")).encode_batch([text for text, _ in rows])
    tokens = [np.array(e.ids)[np.array(e.attention_mask) == 1] for e in encodings]
    torch.manual_seed(0)
    pretrained = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(names))
    planned = EPOCHS * len(rows) // BATCH
    print("| learning rate | steps | reported | one run cut in two | two whole primings | seconds |")
    print("|---|---|---|---|---|---|")
    for rate in options.learning_rates:
        for steps in options.steps:
            one, model = run(pretrained, batches(tokens, labels, 0), steps, planned, rate)
            _, halfway = run(pretrained, batches(tokens, labels, 0), steps // 2, planned, rate)
            other, _ = run(pretrained, batches(tokens, labels, 1), steps, planned, rate)
            cut = top_overlap(changes(pretrained, halfway), changes(halfway, model), RETENTION)
            whole = top_overlap(one.metrics, other.metrics, RETENTION)
            print(
                f"| {rate:g} | {steps} | {one.overlap:.2f} | {cut:.2f} | {whole:.2f} | {one.seconds:.0f} |",
                flush=True,
            )


def run(pretrained: Any, data: Iterator[dict], steps: int, planned: int, rate: float) -> tuple[PrimingResult, Any]:
    """Prime a copy of the model; return the result and the primed copy."""
    model = copy.deepcopy(pretrained)
    settings = PrimingSettings(steps=steps, planned_steps=planned, learning_rate=rate, retention=RETENTION)
    return prime(model, data, settings, Console(quiet=True)), model


def changes(before: Any, after: Any) -> list[np.ndarray]:
    """Return the L1 norm of each node's change between two copies of a model."""
    return [
        b.l1([new - old for old, new in zip(a.values(), b.values(), strict=True)])
        for a, b in zip(find_ffn_blocks(before), find_ffn_blocks(after), strict=True)
    ]


def batches(tokens: list[np.ndarray], labels: np.ndarray, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield shuffled batches without end, each padded to its longest sentence."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(tokens))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            lengths = np.array([len(tokens[i]) for i in chosen])
            mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
            ids = np.zeros_like(mask)
            ids[mask == 1] = np.concatenate([tokens[i] for i in chosen])
            yield {"input_ids": ids, "attention_mask": mask, "labels": labels[chosen]}


if __name__ == "__main__":
    main()
