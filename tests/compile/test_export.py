"""`export_bundle` from a saved model and a file of examples: what the user is told, and what the compiler is given."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir
import torch
from safetensors.torch import load_file, save_file

from edge_far.bundles.bundle import open_bundle
from edge_far.cli import main
from edge_far.compile import pipeline
from edge_far.compile.export_settings import ExportSettings
from edge_far.compile.pipeline import export_bundle
from edge_far.console import Console
from edge_far.errors import InputMissing, Unavailable
from edge_far.profile.document import load_profile
from tests.tiny_models import MAX_POSITIONS, make_examples, make_tiny, make_tokenizer

pytestmark = pytest.mark.host

FROZEN = 58  # of 64 nodes, at 10 % retention
LOOKED_AT = 3  # a twentieth of them


class Reached(Exception):
    """The export came as far as the choice of learners."""


def settings_for(
    directory: Path, architecture: str = "bert", examples: list[dict[str, str]] | None = None, **config: Any
) -> ExportSettings:
    """Save a tiny model, whose config.json has `config`, and examples; return the settings of an export of int8."""
    model = directory / "model"
    make_tiny(architecture).save_pretrained(model)
    make_tokenizer(architecture).save(str(model / "tokenizer.json"))
    document = json.loads((model / "config.json").read_bytes()) | config
    (model / "config.json").write_text(json.dumps(document))
    train = directory / "train.jsonl"
    lines = [json.dumps(example) + "\n" for example in examples or make_examples(40)]
    train.write_text("".join(lines), encoding="utf-8")
    return ExportSettings(
        model=str(model),
        train=train,
        out=directory / "bundle",
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
    settings = replace(settings_for(tmp_path), train=tmp_path / "train.csv", model=str(tmp_path))
    settings.train.write_text("text,label\na,l0\nb,L0\nc,l1\n", encoding="utf-8")
    capsys.readouterr()  # how the tiny model was saved
    with pytest.raises(InputMissing, match="no model here"):
        export_bundle(settings, Console(quiet=True))
    assert capsys.readouterr().err == (
        f"warning: {settings.train}: the labels 'L0' and 'l0' differ in blanks, case or the form of characters alone: "
        "if they mean the same, write them alike\n"
    )


def test_every_frozen_branch_looks_at_a_few_of_its_nodes(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    mask = os.umask(0o027)
    try:
        summary = export_bundle(settings, Console(quiet=True))
    finally:
        os.umask(mask)
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}, "others read what the umask lets them"
    assert (summary["frozen_precision"], summary["head"]) == ("int8", "new")
    for name in ("step", "infer"):
        graph = ir.load(tmp_path / "bundle" / "portable" / f"{name}.onnx").graph
        looks = [node for node in graph if node.op_type == "Slice" and "Gelu" in str(node.inputs[0].name)]
        assert [node.inputs[2].const_value.numpy().tolist() for node in looks] == [[LOOKED_AT]] * 2
        assert {int(node.inputs[0].shape[-1]) for node in looks} == {FROZEN}


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stop an export before its learners are chosen; return what it would choose them by."""
    seen: list[Any] = []

    def stop(*arguments: Any) -> None:
        seen.extend(arguments)
        raise Reached

    monkeypatch.setattr(pipeline, "choose_learners", stop)
    return seen


def test_roberta_s_texts_end_where_its_positions_do(
    reached: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [{"text": " ".join(["w3"] * 90), "label": label} for label in ("a", "b")]
    settings = settings_for(tmp_path, "roberta", long, pad_token_id=3, max_position_embeddings=34)
    table = "roberta.embeddings.position_embeddings.weight"
    weights = load_file(settings.model + "/model.safetensors")
    save_file(weights | {table: weights[table][:34].clone()}, settings.model + "/model.safetensors")
    with pytest.raises(Reached):
        export_bundle(settings, Console(quiet=True))
    source, encoded, settings, *_ = reached
    assert settings.max_seq_len == encoded.max_seq_len == 24
    assert "the model reads at most 24 tokens: --max-seq-len lowered from 64" in capsys.readouterr().err
    assert source.model(input_ids=torch.tensor(encoded.ids[0][None], dtype=torch.int64)).logits.isfinite().all()


def test_what_does_not_fit_is_told(reached: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = [{"text": "w1 mot inconnu", "label": label} for label in "abcde"]
    settings = settings_for(tmp_path, examples=foreign, id2label=dict(enumerate("vwxyz")))
    capsys.readouterr()
    with pytest.raises(Reached):
        export_bundle(settings, Console(quiet=True))
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("warning: a new head: its labels ('v', 'w', 'x', ...) are not the data's")
    assert told[1].endswith(
        "67% of the tokens are unknown to this tokenizer: are its language, case and alphabet those of the data?"
    )


def test_pairs_for_a_model_of_one_segment(reached: list[Any], tmp_path: Path) -> None:
    pairs = [{"text": "w1", "text_pair": "w2", "label": label} for label in "ab"]
    settings = settings_for(tmp_path, examples=pairs, type_vocab_size=1)
    table = "bert.embeddings.token_type_embeddings.weight"
    weights = load_file(settings.model + "/model.safetensors")
    save_file(weights | {table: weights[table][:1].clone()}, settings.model + "/model.safetensors")
    with pytest.raises(Unavailable, match=r"the texts have 2 segments, and the model knows 1 \(type_vocab_size\)"):
        export_bundle(settings, Console(quiet=True))
    assert not reached


def test_heads_are_primed_chosen_and_told(tmp_path: Path) -> None:
    """All FFN nodes learn, so the heads alone ask for priming; below the cut none learns."""
    wanted = {"selection": "far", "retention": 1.0, "frozen_precision": "fp32", "method": "top-1"}
    settings = replace(settings_for(tmp_path), attention="heads", attention_retention=0.25, **wanted)
    summary = export_bundle(settings, Console(quiet=True))
    assert (summary["attention"], summary["heads_per_block"], summary["priming_steps"]) == ("heads", [0, 1], 50)
    bundle = open_bundle(tmp_path / "bundle")
    selection = bundle.manifest.selection
    assert (selection.attention, selection.attention_retention, selection.heads_per_block) == ("heads", 0.25, (0, 1))
    assert selection.split_half_overlap is None and 0 <= (selection.head_overlap or 0) <= 1
    report = json.loads(bundle.path("selection.json").read_bytes())["attention"]
    below, above = report["blocks"]
    assert (below["learners"], below["metric"]) == ([], None)
    assert above["learners"] == [int(np.argmax(above["metric"]))] and len(above["metric"]) == 4
    layout = json.loads(bundle.path("portable/release.json").read_bytes())["layout"]
    assert layout["groups"]["heads"] == {"width": 8, "counts": [4, 4], "learners": [[], above["learners"]]}


def test_the_share_of_heads_needs_heads(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["export", "--method", "far", "--model", "m", "--train", "t", "--out", "o", "--attention-retention", "0.2"]
    assert main(wrong) == 78
    assert "--attention-retention: attention learns whole (add --attention heads)" in capsys.readouterr().err
