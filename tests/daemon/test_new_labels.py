"""Labels that a device learns itself: waiting, taking a place, nights, rollback, and what people may change."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edge_far.cli import main
from edge_far.daemon.new_labels import NewLabels, Tally, places_in
from edge_far.daemon.store.examples import Source, Store
from edge_far.errors import ConfigError, DataError
from edge_far.texts.data import Example
from tests.daemon.field import PROFILE, WORDS, Field
from tests.places import LABELS, with_places

pytestmark = pytest.mark.device


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.sqlite3", held_out_share=0.2)


def add(store: Store, label: str, count: int, start: int = 0) -> None:
    with store.transaction():
        for number in range(start, start + count):
            store.add(Example(f"{label} {number}", None, label), Source("t"))


def test_a_label_waits_and_then_takes_a_place(store: Store) -> None:
    labels = NewLabels(store, LABELS)
    assert labels.allowed and not NewLabels(store, LABELS[:3]).allowed
    add(store, "label-0", 4)
    add(store, "up", 7)
    add(store, "down", 9)
    assert [(each.label, each.examples) for each in labels.waiting()] == [("down", 9), ("up", 7)]
    with store.transaction():
        assert labels.take(8) == ["down"] and labels.take(8) == []
    assert labels.names() == ("label-0", "label-1", "label-2", "down", "reserved-1")
    add(store, "up", 1, start=7)
    add(store, "left", 20)
    with store.transaction():
        assert labels.take(8) == ["left"], "the more frequent one; the places are full"
    assert labels.waiting()[0].label == "up" and labels.taken() == {"down": "reserved-0", "left": "reserved-1"}
    # Another bundle knows one of them itself, and has one place.
    other = NewLabels(store, ["down", "label-0", "reserved-0"])
    assert other.taken() == {} and [each.label for each in other.waiting()] == ["left", "up"]
    with store.transaction():
        assert other.take(8) == ["left"]
    assert other.names() == ("down", "label-0", "left")
    assert labels.taken() == {"left": "reserved-0"}, "it moved; the first bundle finds it there"


def test_a_place_is_found_again_by_the_release(store: Store, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps([*LABELS[:3], "reserved-0", "up"]))
    assert places_in(tmp_path, LABELS) == {"up": "reserved-1"} and places_in(tmp_path / "no", LABELS) == {}
    add(store, "up", 8)
    with store.transaction():
        assert NewLabels(store, LABELS).take(8, places_in(tmp_path, LABELS)) == ["up"]
    assert NewLabels(store, LABELS).names()[4] == "up"


def test_a_label_without_an_example_to_train_on_waits(store: Store) -> None:
    add(store, "up", 60)
    with store.transaction():
        store.database.run("DELETE FROM examples WHERE held_out = 0")
        labels = NewLabels(store, LABELS)
        assert labels.waiting()[0].examples >= 2 and labels.take(2) == []
    assert isinstance(labels.waiting()[0], Tally)


def test_labels_renamed_merged_and_forgotten(store: Store) -> None:
    labels = NewLabels(store, LABELS)
    add(store, "up", 8)
    add(store, "dwn", 3)
    add(store, "label-1", 2)
    with store.transaction():
        labels.take(8)
    change = store.highest_change()
    with store.transaction():
        assert labels.rename("up", "raise") == 8 and labels.merge("dwn", "label-1") == 3
    assert labels.taken() == {"raise": "reserved-0"} and labels.waiting() == []
    assert store.counts(since_change=change).new_examples == 11, "they are new to the next cycle"
    for wrong, kind, told in (
        (lambda: labels.rename("label-0", "x"), ConfigError, "the bundle's own label"),
        (lambda: labels.rename("raise", "label-0"), ConfigError, "is there already"),
        (lambda: labels.rename("raise", "reserved-1"), ConfigError, "name of a place"),
        (lambda: labels.rename("raise", "a\nb"), ConfigError, "not a printable text"),
        (lambda: labels.rename("raise", " "), ConfigError, "is there already"),
        (lambda: labels.merge("raise", "nobody"), DataError, "unknown label 'nobody'"),
        (lambda: labels.merge("raise", "raise"), ConfigError, "is no other label"),
        (lambda: labels.forget("nobody"), DataError, "no label 'nobody' here"),
    ):
        with store.transaction(), pytest.raises(kind, match=told):
            wrong()
    with store.transaction():
        assert labels.forget("raise") == 8
    document = labels.document()
    assert (document["free"], document["taken"], document["waiting"]) == (2, [], [])
    assert store.counts().examples == 5


# --- nights ----------------------------------------------------------------------------------------------------------


def lines(count: int, labels: dict[int, str], seed: int) -> str:
    """Return texts of which number n of `labels` has words of its own."""
    drawn, found = random.Random(seed), []
    for number in range(count):
        kind = list(labels)[number % len(labels)]
        own = WORDS[kind::5]
        text = " ".join(drawn.choice(own if drawn.random() < 0.8 else WORDS) for _ in range(drawn.randint(4, 16)))
        found.append(json.dumps({"text": f"{text} w{seed}", "label": labels[kind]}))
    return "\n".join(found) + "\n"


OLD = {0: "label-0", 1: "label-1", 2: "label-2"}


@pytest.fixture(name="field")
def _field(tmp_path: Path, test_bundles: Path) -> Field:
    with_places(test_bundles / "tiny-fp32", tmp_path / "bundle")
    field = Field(tmp_path, tmp_path / "bundle")
    asked = "min_new_examples: 10, epochs: 6, tolerance_percent: 10"
    field.profile.write_text(PROFILE.replace("min_new_examples: 10", asked))
    return field


def night(field: Field) -> dict[str, Any]:
    found: dict[str, Any] = field.once()["cycle"]
    return found


def names(field: Field, release: str | None = None) -> list[str]:
    path = field.state / "model" / "releases" / (release or field.current()) / "labels.json"
    found: list[str] = json.loads(path.read_text())
    return found


def test_nights_with_a_new_label(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.drop(lines(400, OLD, 1) + lines(6, {3: "blinds"}, 2) + '{"text": "w1", "label": "reserved-1"}\n')
    first = night(field)
    assert first["outcome"] == "released" and names(field) == LABELS
    status = field.status()
    assert (
        status["labels"]["waiting"] == [{"label": "blinds", "examples": 6}] and status["examples"]["quarantined"] == 1
    )
    field.drop(lines(120, {3: "blinds"}, 3) + lines(60, OLD, 4))
    second = night(field)
    assert second["outcome"] == "released", second
    decision, third_label = second["details"]["decision"], names(field)[3]
    learnt = decision["new_labels"]["blinds"]
    assert third_label == "blinds" and learnt["right"] >= 0.7 * learnt["examples"] > 0, decision
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        (old,) = connection.execute("SELECT count(*) FROM examples WHERE held_out AND label LIKE 'label-%'").fetchone()
    assert decision["device"]["examples"] == old, "old labels are judged apart"
    # Back and forward again: the place is kept, the row is fitted anew.
    field.run("rollback")
    assert names(field)[3] == "reserved-0"
    field.drop(lines(60, {**OLD, 3: "blinds"}, 5))
    third = night(field)
    assert third["outcome"] == "released" and names(field)[3] == "blinds"
    assert third["details"]["decision"]["new_labels"]["blinds"]["right"] > 0
    assert field.status()["labels"]["taken"][0]["label"] == "blinds"
    # The next night knows it: nothing is new any more.
    field.drop(lines(60, {**OLD, 3: "blinds"}, 6))
    fourth = night(field)
    assert fourth["details"]["decision"]["new_labels"] == {} and names(field)[3] == "blinds"
    # A label is renamed, and its release follows.
    state = ["--state", str(field.state)]
    assert main(["labels", "rename", "blinds", "shades", *state]) == 0
    assert "learnt   shades" in capsys.readouterr().out
    night(field)
    assert main(["labels", "list", *state, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["free"], [each["label"] for each in document["taken"]]) == (1, ["shades"])
    assert names(field)[3] in ("shades", "blinds")
    for arguments, code in ((["forget"], 64), (["forget", "label-0"], 78), (["forget", "nobody"], 65)):
        assert main(["labels", *arguments, *state]) == code
    # A new bundle has it itself: it needs no place, and its examples train.
    bundle = with_places(field.bundle, field.root / "other", ["label-0", "label-1", "label-2", "shades", "reserved-0"])
    field.bundle = bundle.root
    field.drop(lines(60, {**OLD, 3: "shades"}, 7))
    assert night(field)["outcome"] in ("released", "rejected")
    assert field.status()["labels"]["taken"] == [] and "shades" in names(field)
