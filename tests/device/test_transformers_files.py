"""What `merge --format` writes: transformers itself loads it, no weight missing or left over, with torch's logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
import transformers
from safetensors.torch import load_file

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.release import ReleasedModel
from edge_far.device.transformers_files import write_transformers_directory
from edge_far.errors import BundleError, OutputExists, UsageError
from edge_far.tasks.registry import TASKS
from edge_far.texts.batches import Batch
from edge_far.texts.encode import Encoder
from tests import tiny_models
from tests.tiny_cases import CASES, Case, Oracle

pytestmark = pytest.mark.host
OpenBundle = Callable[[str], Bundle]
LoadOracle = Callable[[str], Oracle]


def one_of_each(pooling: str) -> list[Case]:
    """Return a case of every architecture and task that occurs with a pooling; the last of each, which trains most."""
    return list(
        {
            (case.architecture, case.task): case for case in CASES if (case.pooling == "mean") == (pooling == "mean")
        }.values()
    )


def trained(bundle: Bundle) -> dict[str, np.ndarray]:
    """Return learners as if they had been trained."""
    random = np.random.default_rng(1)
    learners = read_arrays(bundle.path("learners.safetensors"))
    return {name: array + random.normal(0, 0.05, array.shape).astype(np.float32) for name, array in learners.items()}


def inputs_of(batch: Batch) -> dict[str, torch.Tensor]:
    arrays = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        arrays["token_type_ids"] = batch.token_type_ids
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def loaded(directory: Path, kind: str) -> Any:
    """Load a directory as a user would; nothing may be missing, left over or of another size."""
    model, told = getattr(transformers, kind).from_pretrained(directory, output_loading_info=True)
    assert not any(told.get(name) for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    return model.eval()


def alone(batch: Batch) -> list[dict[str, torch.Tensor]]:
    """Return the inputs of each text without padding, which some models of transformers read (MobileBERT)."""
    lengths = batch.attention_mask.sum(axis=1)
    inputs = inputs_of(batch)
    return [{name: a[row : row + 1, :length] for name, a in inputs.items()} for row, length in enumerate(lengths)]


def logits_of(model: Any, batch: Batch) -> np.ndarray:
    """Return the logits of a batch's texts, or of all their tokens."""
    found = []
    for inputs in alone(batch):
        with torch.no_grad():
            answer = model(**inputs)
        spans = hasattr(answer, "start_logits")
        logits = torch.stack([answer.start_logits, answer.end_logits], dim=-1) if spans else answer.logits
        found.append(logits.numpy().reshape(-1, logits.shape[-1]))
    return np.concatenate(found)


def meant(logits: np.ndarray, batch: Batch) -> np.ndarray:
    """Return the logits that mean something: where they are of tokens, not those of the padding."""
    return logits[batch.attention_mask == 1] if logits.ndim == 3 else logits


@pytest.mark.parametrize("case", one_of_each("cls"), ids=lambda case: case.name)
def test_transformers_loads_it_with_equal_logits(
    case: Case, tiny_bundle: OpenBundle, oracle: LoadOracle, tmp_path: Path
) -> None:
    bundle, results = tiny_bundle(case.name), oracle(case.name)
    batch, kind = results.batch(1), f"AutoModelFor{TASKS[case.task].head_class}"
    untrained = read_arrays(bundle.path("learners.safetensors"))
    write_transformers_directory(bundle, untrained, tmp_path / "before", "transformers")
    before = logits_of(loaded(tmp_path / "before", kind), batch)
    write_transformers_directory(bundle, trained(bundle), tmp_path / "after", "transformers")
    after = logits_of(loaded(tmp_path / "after", kind), batch)
    released = ReleasedModel(bundle, trained(bundle), 1).logits(batch)
    np.testing.assert_allclose(after, meant(released, batch), rtol=0, atol=1e-5)
    np.testing.assert_allclose(before, meant(results.logits(1), batch), rtol=0, atol=1e-5)
    assert np.abs(after - before).max() > 1e-3, "training shows"


@pytest.mark.parametrize("case", one_of_each("mean"), ids=lambda case: case.name)
def test_the_modules_of_sentence_transformers_make_the_same_logits(
    case: Case, tiny_bundle: OpenBundle, oracle: LoadOracle, tmp_path: Path
) -> None:
    """Our own reading of its files, by its documented format; with the package itself below."""
    bundle, batch, out = tiny_bundle(case.name), oracle(case.name).batch(1), tmp_path / "out"
    write_transformers_directory(bundle, trained(bundle), out, "sentence-transformers")
    modules = [(module["path"], module["type"].rpartition(".")[2]) for module in read(out / "modules.json")]
    assert modules == [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    pooling, dense = read(out / "1_Pooling" / "config.json"), read(out / "2_Dense" / "config.json")
    assert [key for key, value in pooling.items() if value is True] == ["pooling_mode_mean_tokens"]
    assert dense["activation_function"] == "torch.nn.modules.linear.Identity"
    linear = torch.nn.Linear(dense["in_features"], dense["out_features"], bias=dense["bias"])
    head = load_file(out / "2_Dense" / "model.safetensors")
    linear.load_state_dict({name.removeprefix("linear."): value for name, value in head.items()})
    encoder, told = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    assert not told["unexpected_keys"] and all(".pooler." in f".{key}" for key in told["missing_keys"])
    with torch.no_grad():
        means = [encoder.eval()(**inputs).last_hidden_state.mean(1) for inputs in alone(batch)]
        found = linear(torch.cat(means)).numpy()
    np.testing.assert_allclose(found, ReleasedModel(bundle, trained(bundle), 1).logits(batch), rtol=0, atol=1e-5)


def test_a_head_on_the_mean_that_is_transformers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ModernBERT's, where its config says so; nearly all models' on the mean is ours."""
    usual = tiny_models.tiny_config

    def on_the_mean(*arguments: Any, **named: Any) -> Any:
        config = usual(*arguments, **named)
        config.classifier_pooling = "mean"
        return config

    monkeypatch.setattr(tiny_models, "tiny_config", on_the_mean)
    bundle = tiny_models.make_tiny_bundle(tmp_path, "modernbert", with_ort=False).bundle
    assert bundle.manifest.model.pooling == "mean"
    write_transformers_directory(bundle, trained(bundle), tmp_path / "out", "transformers")
    batch = tiny_models.make_batch()
    found = logits_of(loaded(tmp_path / "out", "AutoModelForSequenceClassification"), batch)
    np.testing.assert_allclose(found, ReleasedModel(bundle, trained(bundle), 1).logits(batch), rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="take --format transformers"):
        write_transformers_directory(bundle, trained(bundle), tmp_path / "other", "sentence-transformers")


@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_itself_gives_the_logits(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    package = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    bundle = tiny_bundle("roberta-head-5-mean")
    write_transformers_directory(bundle, trained(bundle), tmp_path / "out", "sentence-transformers")
    found = package.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(["w1 w2 w3", "w9 w70"])
    expected = ReleasedModel(bundle, trained(bundle), 1)
    encoder = Encoder(bundle.path("tokenizer.json"), 64)
    for row, text in zip(found, ["w1 w2 w3", "w9 w70"], strict=True):
        ids = np.array([encoder.tokenizer.encode(text).ids], np.int64)
        batch = Batch(ids, np.ones_like(ids), None, np.zeros(1, np.int64))
        np.testing.assert_allclose(row, expected.logits(batch)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["bert-r10-2", "roberta-r10-2", "distilbert-r10-77", "mpnet-top1-5-int8"])
def test_its_tokenizer_gives_the_ids_of_the_bundles(name: str, tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    bundle = tiny_bundle(name)
    write_transformers_directory(bundle, trained(bundle), tmp_path / "out", "transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = ["w1 W2 w3", "w4", "unknown w5 " + "w6 " * 80]
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    ours = Encoder(bundle.path("tokenizer.json"), bundle.manifest.defaults.max_seq_len)
    assert encoded["input_ids"].shape[1] == tokenizer.model_max_length == 64
    for text, ids, mask in zip(texts, encoded["input_ids"], encoded["attention_mask"], strict=True):
        whole = ours.tokenizer.encode(text).ids
        expected = whole if len(whole) <= 64 else [*whole[:63], whole[-1]]
        assert list(ids[mask == 1]) == expected
        assert set(ids[mask == 0]) <= {ours.pad_id}
    kinds = ["token_type_ids"] * bundle.manifest.portable.token_types
    assert set(encoded) == {"input_ids", "attention_mask", *kinds}


def test_config_says_what_the_head_means(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    for name, kind, problem in (
        ("bert-r10-5-dropout", "BertForSequenceClassification", "single_label_classification"),
        ("distilbert-r10-multilabel-dropout", "DistilBertForSequenceClassification", "multi_label_classification"),
        ("bert-r40-regress-dropout", "BertForSequenceClassification", "regression"),
        ("bert-r40-tag-dropout", "BertForTokenClassification", None),
        ("bert-head-answer", "BertForQuestionAnswering", None),
    ):
        bundle = tiny_bundle(name)
        write_transformers_directory(bundle, trained(bundle), tmp_path / name, "transformers", threshold=0.25)
        config = transformers.AutoConfig.from_pretrained(tmp_path / name)
        assert (config.architectures, config.problem_type) == ([kind], problem)
        labels = bundle.manifest.labels
        if labels:
            assert config.id2label == dict(enumerate(labels)) and config.label2id[labels[-1]] == len(labels) - 1
        assert config.num_labels == bundle.manifest.task.outputs
        ours = read(tmp_path / name / "config.json")["edge_far"]
        assert ours["bundle"] == bundle.fingerprint and ours["threshold"] == 0.25
        assert (ours["scale"] is None) == (bundle.manifest.task.scale is None)


def test_what_no_class_has_is_refused(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    mean, first = tiny_bundle("distilbert-r10-5-mean"), tiny_bundle("distilbert-r10-77")
    with pytest.raises(UsageError, match=r"on the mean of all tokens.*sentence-transformers"):
        write_transformers_directory(mean, trained(mean), tmp_path / "out", "transformers")
    with pytest.raises(UsageError, match="take --format transformers"):
        write_transformers_directory(first, trained(first), tmp_path / "out", "sentence-transformers")
    files = {name: info for name, info in first.manifest.files.items() if not name.startswith("source/")}
    older = Bundle(first.root, type(first.manifest)(**{**vars(first.manifest), "files": files}), first.fingerprint)
    with pytest.raises(BundleError, match=r"the bundle has no source/config\.json.*export it again"):
        write_transformers_directory(older, trained(first), tmp_path / "out", "transformers")
    assert not any(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(OutputExists):
        write_transformers_directory(first, trained(first), tmp_path / "out", "transformers")


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())
