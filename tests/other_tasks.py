"""Data of the tasks that do not give each text one label, for their tiny bundles (tiny_cases.py). No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BUNDLES = {"regress": "bert-r40-regress-dropout", "multilabel": "distilbert-r10-multilabel-dropout"}


def relabelled(source: Path, out: Path, task: str) -> Path:
    """Write a JSONL file of label-0 to label-4 with a task's labels, which the texts tell as well."""
    records = [json.loads(line) for line in source.read_text().splitlines()]
    lines = [json.dumps(record | {"label": label_of(int(record["label"][-1]), task)}) for record in records]
    out.write_text("\n".join(lines) + "\n")
    return out


def label_of(number: int, task: str) -> Any:
    """Return the label of a task for one of five kinds of texts."""
    if task == "regress":
        return 0.5 + number
    return [f"label-{number}", "label-4"] if number % 2 else [f"label-{number}"] if number else []
