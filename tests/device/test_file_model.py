"""A released directory with something missing or damaged: one line that names the file, 66 or 65."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.file_model import FileModel, is_released_model
from edge_far.device.release_files import CHECKED_FILES, write_release
from edge_far.errors import DataError, EdgeFarError, InputMissing
from edge_far.texts.batches import Batch
from tests.tiny_cases import Oracle


@pytest.fixture(scope="module")
def released(tiny_bundle: Callable[[str], Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tiny_bundle("tiny-fp32")
    out = tmp_path_factory.mktemp("released") / "model"
    write_release(bundle, read_arrays(bundle.path("learners.safetensors")), out)
    return out


@pytest.fixture
def model(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "model"))


def one_line(error: EdgeFarError) -> str:
    assert "\n" not in str(error) and error.hint
    return str(error)


def test_it_answers_as_torch_and_knows_its_length(model: Path, oracle: Callable[[str], Oracle]) -> None:
    loaded = FileModel(model, 1)
    expected = oracle("tiny-fp32")
    np.testing.assert_allclose(loaded.logits(expected.batch(1)), expected.logits(1), rtol=0, atol=1e-5)
    assert (loaded.max_seq_len, len(loaded.labels), loaded.token_types) == (64, 5, False)


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "tokenizer.json", "labels.json"])
def test_a_missing_file(name: str, model: Path) -> None:
    (model / name).unlink()
    assert is_released_model(model)
    with pytest.raises(InputMissing, match=f"{name}: file does not exist") as caught:
        FileModel(model, 1)
    assert one_line(caught.value) and caught.value.exit_code == 66


def test_a_bundle_is_no_released_model(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    assert not is_released_model(tiny_bundle("tiny-fp32").root)
    assert not is_released_model(tmp_path / "none")


NAMES = json.dumps(["a", "b", "c", "d", "e"])
DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "model cut": ("model.onnx", lambda raw: raw[: len(raw) // 2], "model.onnx: cannot be loaded"),
    "model empty": ("model.onnx", lambda raw: b"", "model.onnx: "),
    "model a pointer": ("model.onnx", lambda raw: b"version https://git-lfs", "model.onnx: cannot be loaded"),
    "weights cut": ("weights.bin", lambda raw: raw[:5000], "model.onnx: cannot be loaded"),
    "weights empty": ("weights.bin", lambda raw: b"", "model.onnx: cannot be loaded"),
    "fewer labels": ("labels.json", lambda raw: b'["a", "b"]', "labels.json: names 2 labels, the model has 5"),
    "more labels": ("labels.json", lambda raw: NAMES[:-1].encode() + b', "f"]', "labels.json: names 6 labels"),
    "labels an object": ("labels.json", lambda raw: b'{"0": "a"}', "labels.json: is not a list of names"),
    "labels numbers": ("labels.json", lambda raw: b"[0, 1, 2, 3, 4]", "labels.json: is not a list of names"),
    "labels cut": ("labels.json", lambda raw: raw[:-3], "labels.json: is not JSON"),
    "labels in Latin-1": ("labels.json", lambda raw: b'["\xe4"]', "labels.json: is not JSON"),
    "facts cut": ("release.json", lambda raw: raw[:-3], "release.json: is not JSON"),
    "facts nested": ("release.json", lambda raw: b"[" * 100_000, "release.json: is not JSON"),
    "facts a list": ("release.json", lambda raw: b"[]", "release.json: is not an object"),
    "length a text": ("release.json", lambda raw: b'{"max_seq_len": "64"}', "max_seq_len is '64', not a number"),
    "length true": ("release.json", lambda raw: b'{"max_seq_len": true}', "max_seq_len is True, not a number"),
    "length zero": ("release.json", lambda raw: b'{"max_seq_len": 0}', "max_seq_len is 0, not a number"),
    "task no name": ("release.json", lambda raw: b'{"task": ["classify"]}', "task is ['classify'], not one of"),
    "task unknown": ("release.json", lambda raw: b'{"task": "dance"}', "task is 'dance', not one of classify"),
    "task without its scale": ("release.json", lambda raw: b'{"task": "regress"}', "'scale' is missing"),
    "threshold a text": (
        "release.json",
        lambda raw: b'{"task": "multilabel", "threshold": "high"}',
        'threshold\' is "high"',
    ),
    "newer": ("release.json", lambda raw: b'{"format": 3}', "format 3 is newer than this edge-far reads"),
}


def forget_hashes(model: Path) -> None:
    """Make it a release of before release.json had `files`."""
    facts = json.loads((model / "release.json").read_text())
    del facts["files"]
    (model / "release.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage(damage: str, model: Path) -> None:
    name, change, says = DAMAGES[damage]
    if name in CHECKED_FILES:
        forget_hashes(model)
    (model / name).write_bytes(change((model / name).read_bytes()))
    with pytest.raises(DataError) as caught:
        FileModel(model, 1)
    assert says in one_line(caught.value) and caught.value.exit_code == 65


@pytest.mark.parametrize("name", CHECKED_FILES)
def test_a_changed_byte_is_told_by_its_hash(name: str, model: Path) -> None:
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: content has changed since it was written") as caught:
        FileModel(model, 1)
    assert one_line(caught.value) and caught.value.exit_code == 65


@pytest.mark.parametrize(
    ("files", "says"),
    [({}, "'files' does not name model.onnx"), ({"model.onnx": 1}, "is 1, not an object"), (None, "'files'")],
)
def test_hashes_that_are_none(files: object, says: str, model: Path) -> None:
    facts = json.loads((model / "release.json").read_text())
    (model / "release.json").write_text(json.dumps(facts | {"files": files}))
    with pytest.raises(DataError, match=says) as caught:
        FileModel(model, 1)
    one_line(caught.value)


def test_names_may_be_changed_and_an_older_release_says_no_length(model: Path) -> None:
    (model / "labels.json").write_text(NAMES)
    assert FileModel(model, 1).labels == ["a", "b", "c", "d", "e"]
    (model / "release.json").write_text('{"bundle": "0", "model": "tiny"}')
    assert FileModel(model, 1).max_seq_len is None
    (model / "release.json").unlink()
    assert FileModel(model, 1).max_seq_len is None


@pytest.mark.parametrize(("ids", "length"), [(5, 65), (10**6, 8)])
def test_what_it_cannot_read_is_one_line(ids: int, length: int, model: Path) -> None:
    batch = Batch(np.full((1, length), ids), np.ones((1, length), np.int64), None, np.array([-1]))
    with pytest.raises(DataError, match=r"model.onnx: cannot be run: ") as caught:
        FileModel(model, 1).logits(batch)
    one_line(caught.value)
