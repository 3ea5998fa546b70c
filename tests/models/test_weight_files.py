"""Weights that are incomplete, quantised, wrapped or not there, and weights that nobody uses."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_far.errors import InputMissing, Unavailable
from tests.models.conftest import LABELS, SaveModel, refused

pytestmark = pytest.mark.host

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
LAYER = "bert.encoder.layer.0.output.dense.weight"


def change(directory: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Save a model's weights again, edited."""
    from safetensors.torch import load_file, save_file

    path = directory / "model.safetensors"
    save_file(edit(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.safetensors", POINTER, "git lfs pull"),
        ("model.safetensors", b"", "empty"),
        ("model.safetensors", b"\xff" * 64, "not a safetensors file"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]", "not a safetensors file"),
        ("pytorch_model.bin", POINTER, "git lfs pull"),
        ("pytorch_model.bin", b"hello", "not a file of torch.save"),
        ("pytorch_model.bin", b"PK\x03\x04hello", "cut short"),
        ("pytorch_model.bin", b"\x80\x02}q\x00.", "cannot load the model"),
        ("pytorch_model.bin", pickle.dumps(print), "holds other things than weights"),
    ],
)
def test_a_file_that_holds_no_weights(name: str, content: bytes, says: str, model: SaveModel) -> None:
    directory = model()
    (directory / "model.safetensors").unlink()
    (directory / name).write_bytes(content)
    refused(Unavailable, says, model=directory)


@pytest.mark.parametrize("left", [100, -100])
def test_a_file_that_is_cut_short(left: int, model: SaveModel) -> None:
    path = model() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    assert refused(Unavailable, "the file is cut short", model=path.parent).where == str(path)


def test_no_weights_or_those_of_another_library(model: SaveModel) -> None:
    directory = model()
    (directory / "model.safetensors").unlink()
    refused(Unavailable, "neither model.safetensors nor pytorch_model.bin", model=directory)
    (directory / "tf_model.h5").write_bytes(b"x")
    refused(Unavailable, "tf_model.h5 is TensorFlow weights", model=directory)
    (directory / "model.safetensors").symlink_to("../../blobs/none")
    refused(InputMissing, "is a link to a file that is not here", model=directory)


def test_shards(model: SaveModel) -> None:
    from edge_far.models.source import load_source

    directory = model()
    index = directory / "model.safetensors.index.json"
    (directory / "model.safetensors").rename(directory / "part-1.safetensors")
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}))
    refused(Unavailable, "1 of 2 files are missing: part-2.safetensors", model=directory)
    for wrong in ({"a": "../part-1.safetensors"}, {"a": 1}, {}, [], None):
        index.write_text(json.dumps({"weight_map": wrong}))
        refused(Unavailable, "weight_map names", model=directory)
    index.write_text("{")
    refused(Unavailable, "broken JSON", model=directory)
    from safetensors.torch import load_file

    names = dict.fromkeys(load_file(directory / "part-1.safetensors"), "part-1.safetensors")
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert load_source(str(directory), LABELS, 0).architecture == "bert"


def test_quantised_wrapped_or_damaged_numbers(model: SaveModel) -> None:
    import torch

    directory = model()
    original = (directory / "model.safetensors").read_bytes()
    for edit, says in (
        (lambda w: w | {LAYER: w[LAYER].to(torch.int8)}, "of type I8: saved quantised"),
        (lambda w: {f"module.{name}": value for name, value in w.items()}, "save model.module instead"),
        (lambda w: {f"base_model.model.{name}": value for name, value in w.items()}, "merge_and_unload"),
        (lambda w: w | {LAYER: w[LAYER] * float("nan")}, f"{LAYER} holds NaN"),
        (lambda w: {name: value for name, value in w.items() if name != LAYER}, f"1 weights are missing or .*{LAYER}"),
    ):
        (directory / "model.safetensors").write_bytes(original)
        change(directory, edit)
        refused(Unavailable, says.split(".*")[-1], model=directory)
    (directory / "model.safetensors").write_bytes(original)
    refused(Unavailable, "is [100, 32], and config.json says [200, 32]", model=model(vocab_size=200))


def test_weights_that_are_not_used_are_named(model: SaveModel) -> None:
    import torch

    from edge_far.models.source import load_source

    directory = model(id2label=dict(enumerate(LABELS)))
    assert load_source(str(directory), LABELS, 0).warnings == ()
    positions = {"bert.embeddings.position_ids": torch.arange(64)[None]}  # a buffer that old versions saved
    change(directory, lambda w: w | positions)
    assert load_source(str(directory), LABELS, 0).warnings == ()
    extra = {f"cls.predictions.{name}": torch.zeros(2) for name in "abcd"}
    change(directory, lambda w: w | extra)
    (warning,) = load_source(str(directory), LABELS, 0).warnings
    assert warning.endswith("not used: cls.predictions.a, cls.predictions.b, cls.predictions.c and 1 more")


def test_half_precision_is_read_as_float32(model: SaveModel) -> None:
    import torch

    from edge_far.models.source import load_source

    directory = model()
    change(directory, lambda w: {name: value.half() for name, value in w.items()})
    loaded = load_source(str(directory), LABELS, 0).model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
