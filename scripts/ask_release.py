"""Asks released models as an application does: prints, for each file of examples, which of them are answered rightly.

    .venv-device/bin/python scripts/ask_release.py MODEL FILE... [--max-seq-len 32]

MODEL is a directory with model.onnx, tokenizer.json and labels.json, of the task classify; a label that it does not
know is never right. Prints {FILE: "0110..."}, a digit an example.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.daemon.gate.decide import FileModel
from edge_far.device.board.memory import use_one_heap
from edge_far.device.evaluation import predict_logits
from edge_far.texts.data import read_examples
from edge_far.texts.encode import Encoder


def main() -> int:
    """Answer and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--max-seq-len", type=int, default=32)
    options = parser.parse_args()
    use_one_heap()
    model = FileModel(options.model, threads=1)
    encoder = Encoder(model.tokenizer, options.max_seq_len, token_types=model.token_types)
    document = {}
    for path in options.files:
        examples = read_examples(path, labels=None)
        encoded = encoder.encode(examples, None)
        said = model.task.said(predict_logits(model.logits, encoded, model.task.info))
        right = [model.labels[number] == each.label for number, each in zip(said, examples, strict=True)]
        document[str(path)] = "".join(str(int(each)) for each in right)
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
