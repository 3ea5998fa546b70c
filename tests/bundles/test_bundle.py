"""A bundle is refused, with exit code 65 and the name of the file, as soon as anything about it is not as exported."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_far.bundles.bundle import Bundle, describe_files, open_bundle
from edge_far.bundles.manifest import FORMAT
from edge_far.errors import BundleError, InputMissing

Change = Callable[[dict[str, Any]], Any]
FILES = [
    "tokenizer.json",
    "learners.safetensors",
    "selection.json",
    "source/config.json",
    "source/tokenizer_config.json",
    "portable/step.onnx",
    "portable/step-lean.onnx",
    "portable/infer.onnx",
    "portable/probe.onnx",
    "portable/release.onnx",
    "portable/release-fp16.onnx",
    "portable/release-int8.onnx",
    "portable/release.json",
    "portable/constants.json",
    "portable/weights.bin",
]


@pytest.fixture
def copy(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Path:
    """Return a copy of a bundle that the test may damage."""
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("tiny-int8").root, root)
    return root


def edit(root: Path, change: Change) -> None:
    path = root / "manifest.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def refusal(root: Path) -> BundleError:
    with pytest.raises(BundleError) as raised:
        open_bundle(root)
    assert raised.value.exit_code == 65
    assert "\n" not in str(raised.value) and raised.value.hint
    return raised.value


def test_an_untouched_copy_opens(copy: Path, tiny_bundle: Callable[[str], Bundle]) -> None:
    bundle, original = open_bundle(copy), tiny_bundle("tiny-int8")
    assert bundle.manifest == original.manifest and bundle.fingerprint == original.fingerprint
    assert bundle.fingerprint == hashlib.sha256((copy / "manifest.json").read_bytes()).hexdigest()
    assert json.loads(json.dumps(bundle.manifest.to_json())) == json.loads((copy / "manifest.json").read_bytes())


def test_the_manifest_lists_every_file(copy: Path) -> None:
    assert set(open_bundle(copy).manifest.files) == set(FILES) == set(describe_files(copy))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_changed_byte_is_found_and_its_file_named(name: str, place: float, copy: Path) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    error = refusal(copy)
    assert error.where == str(path) and "does not match manifest.json" in error.message


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_shortened_file_is_named(name: str, copy: Path) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(copy).where == str(path)
    path.unlink()
    assert name in refusal(copy).message


@pytest.mark.parametrize("version", [FORMAT + 1, 99])
def test_a_newer_format_asks_for_an_upgrade(version: int, copy: Path) -> None:
    edit(copy, lambda d: d.update(format=version))
    error = refusal(copy)
    assert f"format {version} is newer than this edge-far reads ({FORMAT})" in error.message and "upgrade" in str(
        error.hint
    )


@pytest.mark.parametrize("version", [0, -1, True, 1.0, None, [1], "two"])
def test_a_format_that_is_no_version_is_refused(version: object, copy: Path) -> None:
    edit(copy, lambda d: d.update(format=version))
    assert refusal(copy).message.startswith("manifest.json is damaged: format is ")


def test_a_newer_format_is_recognised_whatever_else_it_holds(copy: Path) -> None:
    (copy / "manifest.json").write_text(json.dumps({"format": FORMAT + 1, "everything": "else"}))
    assert "newer" in refusal(copy).message


@pytest.mark.parametrize("keep", [0, 1, 200, -2])
def test_a_truncated_manifest_is_damaged(keep: int, copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes()[:keep])
    error = refusal(copy)
    assert error.message.startswith("manifest.json is damaged") and error.where == str(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"null", b"3", b'"text"', b"{}", b"[" * 100_000])
def test_a_manifest_that_is_no_object_is_damaged(content: bytes, copy: Path) -> None:
    (copy / "manifest.json").write_bytes(content)
    assert refusal(copy).message.startswith("manifest.json is damaged")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.update(surprise=1), "manifest"),
        (lambda d: d.pop("labels"), "manifest"),
        (lambda d: d["model"].update(surprise=1), "manifest.model"),
        (lambda d: d["portable"]["masks"][0].pop("factors"), "manifest.portable.masks[0]"),
        (lambda d: d["defaults"].update(epochs="three"), "manifest.defaults.epochs"),
        (lambda d: d["defaults"].update(epochs=True), "manifest.defaults.epochs"),
        (lambda d: d["defaults"].update(dropout=1), "manifest.defaults.dropout"),
        (lambda d: d.update(labels="ab"), "manifest.labels"),
        (lambda d: d["portable"]["parameters"][0].update(shape=[1, "two"]), "parameters[0].shape[1]"),
        (lambda d: d["files"].update({"a.txt": {"sha256": "0"}}), "manifest.files['a.txt']"),
        (lambda d: d["selection"].update(split_half_overlap="high"), "manifest.selection.split_half_overlap"),
    ],
)
def test_unknown_missing_and_wrong_fields_are_named(change: Change, named: str, copy: Path) -> None:
    edit(copy, change)
    error = refusal(copy)
    assert error.message.startswith("manifest.json is damaged") and named in error.message


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(labels=[]),
        lambda d: d.update(labels=["a", "a"]),
        lambda d: d["defaults"].update(learning_rate=float("nan")),
        lambda d: d["defaults"].update(max_seq_len=10**9),
        lambda d: d["defaults"].update(batch_size=0),
        lambda d: d["model"].update(vocabulary=2**64),
        lambda d: d["model"].update(pooling="clsNone"),
        lambda d: d["model"].update(architecture="Bert"),
        lambda d: d["selection"].update(embeddings="thaw"),
        lambda d: d["selection"].update(attention=""),
        lambda d: d["selection"].update(start="x"),
        lambda d: d["selection"].update(retention=1.5),
        lambda d: d["selection"].update(learners_per_block=[-1]),
        lambda d: d["portable"].update(frozen_precision="int4"),
        lambda d: d["portable"].update(step_constant_bytes=-1),
        lambda d: d["portable"]["masks"][0]["shape"].append("batch*batch"),
        lambda d: d["portable"]["steps"][0]["costs"][0].update(kernel="Nope", work=[[1, 1, 1]]),
        lambda d: d["portable"].update(probe=[]),
        lambda d: d["portable"].update(steps=[]),
        lambda d: d["portable"]["steps"][0].update(peaks=[]),
        lambda d: d["portable"]["steps"][0].update(packing=[]),
        lambda d: d["portable"]["steps"][0]["peaks"][0].append([1, 1, 1, 1]),
        lambda d: d["portable"]["infer"]["peaks"][0].append([1e300, 1, 1]),
        lambda d: d["portable"]["parameters"].append(d["portable"]["parameters"][0]),
        lambda d: d["portable"]["parameters"][0].update(shape=[-1]),
        lambda d: d["files"].update({"a\0b": next(iter(d["files"].values()))}),
        lambda d: d["files"].update({"x" * 300: next(iter(d["files"].values()))}),
    ],
)
def test_a_value_that_cannot_be_is_refused(change: Change, copy: Path) -> None:
    edit(copy, change)
    assert str(refusal(copy)).isprintable()


def outside(copy: Path) -> dict[str, object]:
    (copy.parent / "outside.txt").write_text("secret")
    return {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}


@pytest.mark.parametrize(
    "name", ["../outside.txt", "portable/../../outside.txt", "{absolute}", "..\\outside.txt", "", ".", "portable"]
)
def test_a_path_out_of_the_bundle_or_to_no_file_is_refused(name: str, copy: Path) -> None:
    info = outside(copy)
    edit(copy, lambda d: d["files"].update({name.format(absolute=copy.parent / "outside.txt"): info}))
    assert refusal(copy).where == str(copy)


def test_a_link_is_refused_even_to_the_right_content(copy: Path) -> None:
    path = copy / "tokenizer.json"
    path.rename(copy.parent / "tokenizer.json")
    path.symlink_to(copy.parent / "tokenizer.json")
    assert "tokenizer.json is missing or not a plain file" in refusal(copy).message


def test_a_linked_folder_out_of_the_bundle_is_refused(copy: Path) -> None:
    (copy / "portable").rename(copy.parent / "elsewhere")
    (copy / "portable").symlink_to(copy.parent / "elsewhere")
    assert "not a plain file" in refusal(copy).message


def test_a_hard_link_brings_nothing_in_that_the_manifest_does_not_name(copy: Path) -> None:
    """Packages and images hard-link equal files, so that is allowed; what is read has the listed hash all the same."""
    outside = copy.parent / "outside.json"
    outside.write_bytes((copy / "tokenizer.json").read_bytes())
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.json").hardlink_to(outside)
    assert open_bundle(copy).path("tokenizer.json").is_file()
    outside.write_bytes(outside.read_bytes().replace(b"w1", b"w2", 1))
    assert "does not match manifest.json" in refusal(copy).message


def test_no_bundle_at_all(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputMissing) as raised:
            open_bundle(root)
        assert raised.value.exit_code == 66 and "manifest.json" in raised.value.message


def test_a_file_the_manifest_does_not_list_is_not_handed_out(copy: Path) -> None:
    (copy / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"the bundle has no extra\.bin"):
        open_bundle(copy).path("extra.bin")


@pytest.mark.parametrize("name", [name for name in FILES if name != "selection.json"])
def test_a_manifest_without_a_needed_file_names_it_when_it_is_asked_for(name: str, copy: Path) -> None:
    edit(copy, lambda d: d["files"].pop(name))
    with pytest.raises(BundleError, match=f"the bundle has no {name}"):
        open_bundle(copy).path(name)
