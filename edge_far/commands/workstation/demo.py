"""Write the demo's data set: smart-home sentences with 16 intents, as train.jsonl, eval.jsonl and test.jsonl.

Every sentence comes from our own phrasings; the test split uses phrasings and, in part, words that training
never shows. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_far.commands.arguments import SEEDS, Number
from edge_far.console import Console
from edge_far.demo.generate import INTENTS, generate
from edge_far.errors import Unavailable
from edge_far.process.packages import install_line
from edge_far.storage import staged_directory, write_atomically

if TYPE_CHECKING:
    from edge_far.texts.data import Example

EXAMPLES = """examples:
  edge-far demo --out data                       2,048 + 384 + 768 sentences
  edge-far demo --out data --baseline            also what a bag-of-words classifier reaches on them
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge-far demo`."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty directory")
    parser.add_argument(
        "--seed",
        action=Number,
        type=int,
        within=SEEDS,
        default=0,
        metavar="N",
        help="another seed, another data set (default: 0)",
    )
    parser.add_argument("--baseline", action="store_true", help="train a bag-of-words classifier as well")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Write the data set; return its counts, and with --baseline the accuracies in [0, 1].

    Raises OutputExists (73) for a directory that is not empty, StorageError (74).
    """
    splits = generate(options.seed)
    with staged_directory(options.out) as directory:
        for name, examples in splits.items():
            write_atomically(directory / f"{name}.jsonl", _as_jsonl(examples))
    document: dict[str, Any] = {
        "out": str(options.out),
        "seed": options.seed,
        "intents": len(INTENTS),
        "examples": {name: len(examples) for name, examples in splits.items()},
        "labels": sorted(intent.label for intent in INTENTS),
    }
    if options.baseline:
        console.info("training the bag-of-words baseline")
        document["baseline"] = _baseline(splits)
    return document


def render(document: dict[str, Any]) -> str:
    """Return the counts, and the baseline where it was measured."""
    examples = document["examples"]
    counts = ", ".join(f"{name} {count}" for name, count in examples.items())
    lines = [f"{document['out']}: {sum(examples.values())} sentences, {document['intents']} intents ({counts})"]
    if "baseline" in document:
        baseline = document["baseline"]
        lines.append(
            f"bag of words: test accuracy {baseline['test_accuracy']:.1%}, "
            f"eval accuracy {baseline['eval_accuracy']:.1%} "
            f"({baseline['features']} features, L2 {baseline['penalty']:g})"
        )
    return "\n".join(lines)


def _as_jsonl(examples: Sequence[Example]) -> bytes:
    lines = [json.dumps({"text": example.text, "label": example.label}) for example in examples]
    return ("\n".join(lines) + "\n").encode()


def _baseline(splits: dict[str, list[Example]]) -> dict[str, Any]:
    try:
        from edge_far.demo.bag_of_words import measure_baseline
    except ImportError as error:
        raise Unavailable("the baseline needs numpy", hint=install_line("device")) from error
    found = measure_baseline(splits["train"], splits["eval"], splits["test"])
    return {
        "test_accuracy": found.test_accuracy,
        "eval_accuracy": found.eval_accuracy,
        "penalty": found.penalty,
        "features": found.features,
    }
