"""The child that asks the released files themselves: both models answer the held-out examples, the gate decides.

    decide --candidate DIR --current DIR [--factory DIR] --held-out FILE [--base FILE] --settings JSON --out FILE

Refuses to know the store and the releases; it reads and writes files. Models are loaded one after the other,
with their weights mapped, so that the smallest board can do it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_far.daemon.gate.verdict import Answers, GateSettings, decide
from edge_far.device.board.memory import use_one_heap
from edge_far.device.evaluation import predict_logits
from edge_far.device.file_model import FileModel
from edge_far.errors import EdgeFarError
from edge_far.storage import write_json
from edge_far.texts.data import read_examples
from edge_far.texts.encode import Encoded, Encoder

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Write the decision; return 0, or the exit code of the failure, which is printed as JSON."""
    parser = argparse.ArgumentParser(prog="decide")
    for name in ("candidate", "current", "held-out", "out"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--factory", type=Path)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--settings", required=True, type=json.loads)
    parser.add_argument("--max-seq-len", required=True, type=int)
    parser.add_argument("--threads", default=1, type=int)
    options = parser.parse_args(arguments)
    try:
        document = _decide(options)
        write_json(options.out, document)
    except EdgeFarError as error:
        print(json.dumps({"error": error.as_document()}), flush=True)
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _decide(options: argparse.Namespace) -> dict[str, object]:
    use_one_heap()
    settings = GateSettings(**options.settings)
    sets = {"device": options.held_out, "base": options.base}
    files = {name: path for name, path in sets.items() if path is not None}
    candidate = _answers(options.candidate, files, options)
    current = _answers(options.current, {"device": files["device"]}, options)
    device = Answers(candidate["device"][0], candidate["device"][1], current["device"][1])
    base = None
    if "base" in files:
        same = options.factory.resolve() == options.current.resolve()
        asked = current if same and "base" in current else _answers(options.factory, {"base": files["base"]}, options)
        base = Answers(candidate["base"][0], candidate["base"][1], asked["base"][1])
    decision = decide(device, base, settings)
    return {**decision.as_document(), "settings": dataclasses.asdict(settings)}


def _answers(
    directory: Path, files: dict[str, Path], options: argparse.Namespace
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return labels [N] and logits [N, C] for each file."""
    model = FileModel(directory, options.threads)
    encoder = Encoder(model.tokenizer, options.max_seq_len, token_types=model.token_types)
    result = {}
    for name, path in files.items():
        examples = read_examples(path, labels=model.labels) if path.stat().st_size else []
        if not examples:
            result[name] = (np.zeros(0, np.int64), np.zeros((0, len(model.labels)), np.float32))
            continue
        encoded: Encoded = encoder.encode(examples, model.labels)
        result[name] = (encoded.labels, predict_logits(model.logits, encoded, len(model.labels)))
    return result
