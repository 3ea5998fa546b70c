"""`export_bundle` from a saved model and a file of examples: calibration reaches both graphs of int8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.pipeline import ExportSettings, export_bundle
from edge_far.console import Console
from edge_far.profile.document import load_profile
from tests.tiny_models import MAX_POSITIONS, make_examples, make_tiny, make_tokenizer

pytestmark = pytest.mark.host

FROZEN = 58  # of 64 nodes, at 10 % retention
LOOKED_AT = 3  # a twentieth of them


def test_every_frozen_branch_looks_at_a_few_of_its_nodes(tmp_path: Path) -> None:
    model = tmp_path / "model"
    make_tiny("bert").save_pretrained(model)
    make_tokenizer("bert").save(str(model / "tokenizer.json"))
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(example) + "\n" for example in make_examples(40)), encoding="utf-8")
    settings = ExportSettings(
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
    summary = export_bundle(settings, Console(quiet=True))
    assert summary["frozen_precision"] == "int8"
    for name in ("step", "infer"):
        graph = ir.load(tmp_path / "bundle" / "portable" / f"{name}.onnx").graph
        looks = [node for node in graph if node.op_type == "Slice" and "Gelu" in str(node.inputs[0].name)]
        assert [node.inputs[2].const_value.numpy().tolist() for node in looks] == [[LOOKED_AT]] * 2
        assert {int(node.inputs[0].shape[-1]) for node in looks} == {FROZEN}
