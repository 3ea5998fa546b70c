"""`export_bundle` from a saved model and a file of examples: calibration reaches both graphs of int8."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.pipeline import ExportSettings, export_bundle
from edge_far.console import Console
from edge_far.errors import InputMissing
from edge_far.profile.document import load_profile
from tests.tiny_models import MAX_POSITIONS, make_examples, make_tiny, make_tokenizer

pytestmark = pytest.mark.host

FROZEN = 58  # of 64 nodes, at 10 % retention
LOOKED_AT = 3  # a twentieth of them


def settings_for(model: Path, train: Path, tmp_path: Path) -> ExportSettings:
    return ExportSettings(
        model=str(model),
        train=train,
        out=tmp_path / "bundle",
        profile=load_profile("workstation"),
        selection="magnitude",
        retention=0.1,
        priming=0.0,
        start="reset",
        embeddings="frozen",
        frozen_precision="int8",
        max_seq_len=MAX_POSITIONS,
        learning_rate=None,
        epochs=1,
        batch_size=4,
        dropout=False,
        seed=0,
        with_ort=False,
    )


def test_labels_that_look_alike_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = tmp_path / "train.csv"
    train.write_text("text,label\na,l0\nb, l0\nc,l1\n", encoding="utf-8")
    with pytest.raises(InputMissing, match="no model here"):
        export_bundle(settings_for(tmp_path, train, tmp_path), Console(quiet=True))
    assert capsys.readouterr().err == (
        f"warning: {train}: the labels ' l0' and 'l0' differ in blanks, case or the form of characters alone: "
        "if they mean the same, write them alike\n"
    )


def test_every_frozen_branch_looks_at_a_few_of_its_nodes(tmp_path: Path) -> None:
    model = tmp_path / "model"
    make_tiny("bert").save_pretrained(model)
    make_tokenizer("bert").save(str(model / "tokenizer.json"))
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(example) + "\n" for example in make_examples(40)), encoding="utf-8")
    mask = os.umask(0o027)
    try:
        summary = export_bundle(settings_for(model, train, tmp_path), Console(quiet=True))
    finally:
        os.umask(mask)
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}, "others read what the umask lets them"
    assert summary["frozen_precision"] == "int8"
    for name in ("step", "infer"):
        graph = ir.load(tmp_path / "bundle" / "portable" / f"{name}.onnx").graph
        looks = [node for node in graph if node.op_type == "Slice" and "Gelu" in str(node.inputs[0].name)]
        assert [node.inputs[2].const_value.numpy().tolist() for node in looks] == [[LOOKED_AT]] * 2
        assert {int(node.inputs[0].shape[-1]) for node in looks} == {FROZEN}
