"""Data of the tasks that do not give each text one label, for their tiny bundles (tiny_cases.py). No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.texts.batches import Batch

BUNDLES = {
    "regress": "bert-r40-regress-dropout",
    "multilabel": "distilbert-r10-multilabel-dropout",
    "tag": "bert-r40-tag-dropout",
    "answer": "roberta-r10-answer-dropout",
}


def counted(logits: np.ndarray, batch: Batch) -> np.ndarray:
    """Return logits without those of padding, which nobody reads and models compute in different ways."""
    return logits[batch.attention_mask == 1] if logits.ndim == 3 else logits


def relabelled(source: Path, out: Path, task: str) -> Path:
    """Write a JSONL file of label-0 to label-4 with a task's labels, which the texts tell as well."""
    records = [json.loads(line) for line in source.read_text().splitlines()]
    lines = [json.dumps(record_of(record["text"], int(record["label"][-1]), task)) for record in records]
    out.write_text("\n".join(lines) + "\n")
    return out


def record_of(text: str, number: int, task: str) -> dict[str, Any]:
    """Return a task's record of one of five kinds of texts; of words w0, w1, ... the number says tags and answers."""
    if task == "regress":
        return {"text": text, "label": 0.5 + number}
    if task == "multilabel":
        label = [f"label-{number}", "label-4"] if number % 2 else [f"label-{number}"] if number else []
        return {"text": text, "label": label}
    kinds = [int(word[1:]) % 5 for word in text.split()]
    if task == "tag":
        before = [None, *kinds]
        tags = [
            "O" if kind > 1 else ("I-" if kind == last else "B-") + "ab"[kind]
            for kind, last in zip(kinds, before, strict=False)
        ]
        return {"text": text, "label": tags}
    found = next((word for word, kind in zip(text.split(), kinds, strict=True) if kind == 0), None)
    return {"text": "w3", "text_pair": text, "label": [] if found is None else [{"text": found}]}


def spans_of(tags: list[str]) -> set[tuple[str, int, int]]:
    """Return kind, first and last word of each span."""
    found: list[tuple[str, int, int]] = []
    for place, tag in enumerate(tags):
        if tag == "O":
            continue
        if tag[0] == "I" and found and found[-1][0] == tag[2:] and found[-1][2] == place - 1:
            found[-1] = (tag[2:], found[-1][1], place)
        else:
            found.append((tag[2:], place, place))
    return set(found)
