"""A night with numbers and one with lists of labels, from the spool to a release that an application runs."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tests.daemon.field import PROFILE, WORDS, Field
from tests.other_tasks import BUNDLES, record_of, spans_of

pytestmark = pytest.mark.device


def examples(count: int, task: str) -> list[dict[str, object]]:
    """Return texts whose words tell their label."""
    drawn = random.Random(0)
    made = []
    for number in range(count):
        own = WORDS[number % 5 :: 5]
        text = " ".join(drawn.choice(own if drawn.random() < 0.8 else WORDS) for _ in range(drawn.randint(4, 16)))
        made.append(record_of(text, number % 5, task))
    return made


def credit_by_hand(release: Path, rows: list[tuple[str, str | None, str]], task: str) -> float:
    """Measure a release as an application would use it, by what release.json says."""
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(release / "model.onnx")
    tokenizer = Tokenizer.from_file(str(release / "tokenizer.json"))
    facts = json.loads((release / "release.json").read_text())
    total = 0.0
    for text, pair, label in rows:
        ids = np.array([tokenizer.encode(text, pair).ids[:64]], np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (logits,) = session.run(["logits"], {entry["name"]: feeds[entry["name"]] for entry in facts["inputs"]})
        if task == "regress":
            scale = facts["scale"]
            error = logits[0, 0] * scale["deviation"] + scale["mean"] - float(label)
            total += 1 - (error / scale["deviation"]) ** 2
            continue
        if task == "tag":  # a word is a token, between a first and a last one
            named = spans_of([facts["labels"][number] for number in logits[0, 1:-1].argmax(axis=-1)])
            right = spans_of(label.split())
            total += 2 * len(named & right) / (len(named) + len(right)) if named or right else 1.0
            continue
        if task == "answer":
            total += overlap(logits[0], pair or "", json.loads(label))
            continue
        odds = 1 / (1 + np.exp(-logits[0]))
        said = {name for name, share in zip(facts["labels"], odds, strict=True) if share >= facts["threshold"]}
        truth = set(json.loads(label))
        total += 2 * len(said & truth) / (len(said) + len(truth)) if said or truth else 1.0
    return total / len(rows)


def overlap(logits: np.ndarray, pair: str, answers: list[tuple[int, str]]) -> float:
    """Return the F1 of the tokens of the likeliest span and of a true word; <s> w3 </s> </s> come before the pair."""
    words = pair.split()
    begins, ends = logits[4 : 4 + len(words)].T
    sums = {(a, b): begins[a] + ends[b] for a in range(len(words)) for b in range(a, min(a + 30, len(words)))}
    first, last = max(sums, key=lambda place: sums[place])
    if not answers:
        return 0.0  # something is always said: no run measured a threshold
    return 2.0 * (first <= words.index(answers[0][1]) <= last) / (last - first + 2)


@pytest.mark.parametrize("task", BUNDLES)
def test_a_night(task: str, test_bundles: Path, tmp_path: Path) -> None:
    field = Field(tmp_path, test_bundles / BUNDLES[task])
    precision = "int8" if task == "multilabel" else "fp32"
    settings = f"min_new_examples: 10, epochs: 6, release_precision: {precision}"
    field.profile.write_text(PROFILE.replace("min_new_examples: 10", settings))
    lines = [json.dumps(example) for example in examples(500, task)]
    wrong = {"regress": "many", "multilabel": "w", "tag": ["O"], "answer": "w7"}[task]
    lines.append(json.dumps({"text": "w1 w2 w3", "label": wrong}))
    lines.append(json.dumps({"text": "w4 w5", "label": "off"}))
    field.drop("\n".join(lines) + "\n")
    document = field.once()
    cycle = document["cycle"]
    assert document["spool"]["quarantined"] == 2 and cycle["outcome"] == "released", cycle
    found = cycle["details"]["decision"]["device"]
    score = found["score"]
    assert score == {"regress": "explained", "answer": "answer_f1"}.get(task, "example_f1")
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        rows = connection.execute("SELECT text, text_pair, label FROM examples WHERE held_out = 1").fetchall()
    release = field.state / "model" / "releases" / cycle["candidate"]
    assert json.loads((release / "release.json").read_text())["precision"] == precision
    # In 8 bits the texts of a batch share a scale, and the gate asks in batches: a label can fall the other way.
    tolerance = 0.01 if precision == "int8" else 1e-4
    assert credit_by_hand(release, rows, task) == pytest.approx(found[f"candidate_{score}"], abs=tolerance)
    assert found[f"candidate_{score}"] > found[f"reference_{score}"] + 0.05 and field.current() == cycle["candidate"]
    status = field.status()
    assert status["state"] == "healthy" and status["model"]["held_out_score"] == found[f"candidate_{score}"]
    assert field.run("releases")["releases"][0]["current"]
