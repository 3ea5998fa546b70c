"""Settings: defaults from the bundle, bounds, and a record that only the same run continues."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.device.planning.plan import Choice
from edge_far.device.run.settings import RunRecord, load_record, resolve_settings, store_record
from edge_far.errors import ConfigError, InputMissing


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Callable[[str], Bundle]) -> Bundle:
    return tiny_bundle("tiny-fp32")


@pytest.fixture
def record(bundle: Bundle) -> RunRecord:
    return RunRecord(
        settings=resolve_settings(bundle, {}),
        bundle="b",
        train_sha256="t",
        eval_sha256=None,
        backend="portable",
        threads=2,
        rows={"8": 4, "64": 1},
        evaluation_tokens=256,
        onnxruntime="1.32.0",
    )


def test_defaults_travel_with_the_bundle_and_wishes_win(bundle: Bundle) -> None:
    defaults = asdict(bundle.manifest.defaults)
    asked_for = {"max_steps": None, "optimizer": "adamw", "proximal_mu": 0.0}
    assert asdict(resolve_settings(bundle, {})) == {**defaults, **asked_for}
    wishes = {"epochs": 7, "dropout": False, "seed": None, "max_steps": 3, "optimizer": "lion", "proximal_mu": 0.5}
    changed = {name: value for name, value in wishes.items() if value is not None}
    assert asdict(resolve_settings(bundle, wishes)) == {**defaults, **changed}


def test_max_seq_len_is_rounded_down_to_eight(bundle: Bundle) -> None:
    assert resolve_settings(bundle, {"max_seq_len": 31}).max_seq_len == 24
    assert resolve_settings(bundle, {"max_seq_len": 64}).max_seq_len == 64


@pytest.mark.parametrize(
    ("wish", "where"),
    [
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": 65_537}, "--batch-size"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"learning_rate": float("inf")}, "--learning-rate"),
        ({"seed": -1}, "--seed"),
        ({"max_seq_len": 7}, "--max-seq-len"),
        ({"max_seq_len": 72}, "--max-seq-len"),
        ({"max_steps": 0}, "--max-steps"),
        ({"optimizer": "adam"}, "--optimizer"),
    ],
)
def test_bounds(wish: dict[str, Any], where: str, bundle: Bundle) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve_settings(bundle, wish)
    assert raised.value.where == where


def test_record_is_kept(record: RunRecord, tmp_path: Path) -> None:
    store_record(tmp_path / "run.json", record)
    found = load_record(tmp_path / "run.json")
    assert found == record and found.choice == Choice({8: 4, 64: 1}, 256)
    found.refuse_changes(replace(record, rows={}, threads=1, onnxruntime="1.31.0"))


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"bundle": "x"}, "BUNDLE", "the bundle differs"),
        ({"train_sha256": "x"}, "--train", "training data differs"),
        ({"eval_sha256": "x"}, "--eval", "evaluation data differs"),
        ({"learners_sha256": "x"}, "--learners", "other learners"),
        ({"backend": "ort-training"}, "--backend", "started with portable"),
    ],
)
def test_another_run_is_refused(change: dict[str, str], where: str, says: str, record: RunRecord) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        record.refuse_changes(replace(record, **change))  # type: ignore[arg-type]
    assert raised.value.where == where


def test_other_settings_are_refused_by_name(record: RunRecord) -> None:
    for change, says in (
        ({"epochs": 9}, "started with 1, not 9"),
        ({"dropout": False}, "started with dropout, not no dropout"),
        ({"max_steps": 5}, "started with no limit, not 5"),
        ({"learning_rate": 0.0003}, "started with 0.001, not 0.0003"),
        ({"optimizer": "lion"}, "started with adamw, not lion"),
    ):
        with pytest.raises(ConfigError, match=says) as raised:
            record.refuse_changes(replace(record, settings=replace(record.settings, **change)))  # type: ignore[arg-type]
        assert raised.value.where == f"--{next(iter(change)).replace('_', '-')}"


@pytest.mark.parametrize(
    "change",
    [
        lambda document: "{",
        lambda document: "[]",
        lambda document: "7",
        lambda document: json.dumps({**document, "rows": {}}),
        lambda document: json.dumps({**document, "rows": {"eight": 4}}),
        lambda document: json.dumps({**document, "rows": {"8": 0}}),
        lambda document: json.dumps({**document, "rows": 7}),
        lambda document: json.dumps({**document, "rows": {"\u0668": 4}}),
        lambda document: json.dumps({**document, "rows": {"8": 2**64}}),
        lambda document: json.dumps({**document, "threads": -1}),
        lambda document: json.dumps({**document, "variants": {"x": "step"}}),
        lambda document: json.dumps({**document, "settings": {**document["settings"], "learning_rate": float("nan")}}),
        lambda document: "[" * 100_000,
        lambda document: json.dumps({**document, "settings": {}}),
        lambda document: json.dumps({**document, "surprise": 1}),
    ],
)
def test_damaged_record(change: Callable[[dict[str, Any]], str], record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(change(asdict(record)))
    with pytest.raises(ConfigError, match=r"run\.json is damaged"):
        load_record(tmp_path / "run.json")


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no run to resume"):
        load_record(tmp_path / "run.json")
