"""The released model: any ONNX Runtime loads it, its logits are ours, and what was not trained is kept bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.session import PortableBackend
from edge_far.device.release import ReleasedModel, compose
from edge_far.device.release_files import write_release
from edge_far.errors import BundleError, OutputExists
from edge_far.texts.batches import Batch
from tests.other_tasks import counted
from tests.tiny_cases import BATCH_SHAPES, CASES, Oracle

OpenBundle = Callable[[str], Bundle]
LoadOracle = Callable[[str], Oracle]
NAMES = [case.name for case in CASES]


def trained(bundle: Bundle) -> dict[str, np.ndarray]:
    """Return learners as if they had been trained."""
    random = np.random.default_rng(1)
    learners = read_arrays(bundle.path("learners.safetensors"))
    return {name: array + random.normal(0, 0.05, array.shape).astype(np.float32) for name, array in learners.items()}


def weights_of(bundle: Bundle, folder: Path) -> dict[str, np.ndarray]:
    """Read the original parameters of a release from its weights.bin, by the bundle's regions."""
    regions = json.loads(bundle.path("portable/release.json").read_bytes())["regions"]
    raw = (folder / "weights.bin").read_bytes()
    return {
        name: np.frombuffer(raw, np.float32, region["length"] // 4, region["offset"]).reshape(region["shape"])
        for name, region in regions.items()
    }


def logits_of(folder: Path, batch: Batch, token_types: bool) -> np.ndarray:
    """Run model.onnx as an application would: a session of default options, nothing of edge-far's."""
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    feeds = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if token_types:
        types = batch.token_type_ids
        feeds["token_type_ids"] = np.zeros_like(batch.input_ids) if types is None else types
    assert {value.name for value in session.get_inputs()} == set(feeds)
    return np.asarray(session.run(["logits"], feeds)[0])


@pytest.mark.parametrize("name", NAMES)
def test_after_zero_steps_the_weights_are_the_original_ones_bit_for_bit(
    name: str, tiny_bundle: OpenBundle, oracle: LoadOracle, tmp_path: Path
) -> None:
    bundle, expected = tiny_bundle(name), oracle(name)
    write_release(bundle, read_arrays(bundle.path("learners.safetensors")), tmp_path / "model")
    found = weights_of(bundle, tmp_path / "model")
    original = expected.parameters()
    assert found.keys() == original.keys()
    for key, array in original.items():
        assert found[key].tobytes() == array.tobytes(), key
    for number in range(len(BATCH_SHAPES)):
        batch = expected.batch(number)
        logits = logits_of(tmp_path / "model", batch, bundle.manifest.portable.token_types)
        found, wanted = (counted(each, batch) for each in (logits, expected.logits(number)))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.device  # it trains: the workstation's ONNX Runtime is too old
@pytest.mark.parametrize("name", NAMES)
def test_merged_file_released_model_and_training_engine_agree(
    name: str, tiny_bundle: OpenBundle, oracle: LoadOracle, tmp_path: Path
) -> None:
    bundle, batch = tiny_bundle(name), oracle(name).batch(1)
    learners = trained(bundle)
    write_release(bundle, learners, tmp_path / "model")
    released = ReleasedModel(bundle, learners, 1).logits(batch)
    merged = logits_of(tmp_path / "model", batch, bundle.manifest.portable.token_types)
    np.testing.assert_allclose(merged, released, rtol=0, atol=1e-5)
    assert np.abs(merged - oracle(name).logits(1)).max() > 1e-3, "training shows"
    if bundle.manifest.portable.frozen_precision == "fp32":
        backend = PortableBackend(bundle, learners, 1, dropout=False)
        found, wanted = (counted(each, batch) for each in (backend.logits(batch), released))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "labels.json",
        "model.onnx",
        "release.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "weights.bin",
    ]
    assert json.loads((tmp_path / "model" / "labels.json").read_bytes()) == list(bundle.manifest.labels)


@pytest.mark.parametrize("name", ["tiny-fp32", "roberta-r10-5-int8", "bert-r40-77-embeddings", "bert-r10-5-heads"])
def test_only_learners_and_trained_parameters_change(name: str, tiny_bundle: OpenBundle, oracle: LoadOracle) -> None:
    bundle, original = tiny_bundle(name), oracle(name).parameters()
    composed = compose(bundle, trained(bundle))
    layout = json.loads(bundle.path("portable/release.json").read_bytes())["layout"]
    split = 0
    for key, array in composed.items():
        composition = layout["parameters"][key]
        if isinstance(composition, str):
            continue
        split += 1
        learning = learning_elements(layout["groups"][composition["group"]], composition["block"])
        axis = composition["axis"]
        frozen = np.setdiff1d(np.arange(array.shape[axis]), learning)
        assert np.take(array, frozen, axis).tobytes() == np.take(original[key], frozen, axis).tobytes()
        assert (np.take(array, learning, axis) != np.take(original[key], learning, axis)).all()
    # Of two blocks: weight and bias of the first linear, weight of the second; and of heads seven more.
    assert split == (20 if name == "bert-r10-5-heads" else 6)


def learning_elements(group: dict[str, Any], block: int) -> list[int]:
    return [head * group["width"] + element for head in group["learners"][block] for element in range(group["width"])]


def test_learners_of_another_bundle_are_refused(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    bundle = tiny_bundle("tiny-fp32")
    learners = trained(bundle)
    for name in learners:
        if "learner_in.weight" in name:
            for wrong in ({**learners, name: learners[name][:-1]}, {k: v for k, v in learners.items() if k != name}):
                with pytest.raises(BundleError, match="learner_in"):
                    write_release(bundle, wrong, tmp_path / "model")
    assert not list(tmp_path.iterdir()), "nothing half done is left"


def test_an_existing_directory_is_left_alone(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes").write_text("mine")
    bundle = tiny_bundle("tiny-fp32")
    with pytest.raises(OutputExists):
        write_release(bundle, trained(bundle), tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["notes"]


ARCHITECTURES = ["bert-r10-2", "distilbert-r10-77", "roberta-r10-2"]


@pytest.mark.parametrize("name", [*ARCHITECTURES, "distilbert-r10-5-mean"])
def test_the_facts_are_those_of_the_model(name: str, tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    bundle = tiny_bundle(name)
    write_release(bundle, read_arrays(bundle.path("learners.safetensors")), tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "release.json").read_bytes())
    session = ort.InferenceSession(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    types = {"tensor(int64)": "int64", "tensor(float)": "float32"}
    for key, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        assert facts[key] == [{"name": v.name, "type": types[v.type], "shape": v.shape} for v in values]
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    manifest = bundle.manifest
    assert facts["padding_id"] == tokenizer.token_to_id("<pad>" if "roberta" in name else "[PAD]")
    assert facts["labels"] == json.loads((tmp_path / "model" / "labels.json").read_bytes()) == list(manifest.labels)
    assert (facts["bundle"], facts["architecture"]) == (bundle.fingerprint, manifest.model.architecture)
    assert (facts["max_seq_len"], facts["padding_side"], facts["truncation_side"]) == (64, "right", "right")
    pooling = "mean" if "mean" in name else "first token"
    assert (facts["task"], facts["pooling"], facts["format"]) == ("classify", pooling, 2)
    assert (facts["scale"], facts["threshold"]) == (None, None)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_application_needs_the_facts_alone(name: str, tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    """Inputs, side and token of padding as the facts name them: the answer is that of the text alone."""
    bundle = tiny_bundle(name)
    write_release(bundle, read_arrays(bundle.path("learners.safetensors")), tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "release.json").read_bytes())
    ids = np.array([Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json")).encode("w1 w2 w3").ids])
    room = 16 - ids.shape[1]
    padding = ((0, 0), (0, room) if facts["padding_side"] == "right" else (room, 0))
    mask = np.ones_like(ids)
    session = ort.InferenceSession(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    answers = []
    for text, read in (
        (ids, mask),
        (np.pad(ids, padding, constant_values=facts["padding_id"]), np.pad(mask, padding)),
    ):
        values = {"input_ids": text, "attention_mask": read, "token_type_ids": np.zeros_like(text)}
        answers.append(session.run(None, {entry["name"]: values[entry["name"]] for entry in facts["inputs"]})[0])
    np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=1e-5)
