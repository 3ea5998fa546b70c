"""Loading a model: what it is called in the manifest, silence while it loads, and errors for what is no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_far.errors import InputMissing, Unavailable

pytestmark = pytest.mark.host

LABELS = ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its tokenizer, as transformers saves it."""
    from tests.tiny_models import make_tiny, make_tokenizer

    directory = tmp_path_factory.mktemp("source") / "my-bert"
    make_tiny("bert").save_pretrained(directory)
    make_tokenizer("bert").save(str(directory / "tokenizer.json"))
    return directory


def test_name_is_the_directory_s_or_says_more_where_that_says_nothing(saved: Path, tmp_path: Path) -> None:
    from edge_far.models.source import load_source

    assert load_source(str(saved), LABELS, 0).name == "my-bert"
    unnamed = tmp_path / "model"
    unnamed.symlink_to(saved)
    assert load_source(str(unnamed), LABELS, 0).name == "my-bert"  # where the link leads
    unnamed.unlink()
    saved.rename(unnamed)
    try:
        assert load_source(str(unnamed), LABELS, 0).name == "bert-2x32"
        (tmp_path / "__init__.py").touch()
        assert load_source(str(unnamed), LABELS, 0).name == tmp_path.name
    finally:
        unnamed.rename(saved)


def test_loading_prints_nothing_and_leaves_progress_bars_as_they_were(
    saved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    from edge_far.models.source import load_source

    before = logging.is_progress_bar_enabled()
    capfd.readouterr()
    source = load_source(str(saved), [*LABELS, "a new head"], 0)
    assert source.model.config.num_labels == 6
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled() == before


def test_same_seed_same_new_head(saved: Path) -> None:
    import torch

    from edge_far.models.source import load_source

    heads = [load_source(str(saved), LABELS[:2], seed).model.classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    from edge_far.models.source import load_source

    with pytest.raises(InputMissing, match=r"config\.json is missing"):
        load_source(str(tmp_path), LABELS, 0)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(Unavailable, match="cannot load the model") as caught:
        load_source(str(tmp_path), LABELS, 0)
    assert "\n" not in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(Unavailable, match="cannot load the model"):
        load_source(str(tmp_path), LABELS, 0)


def test_only_the_head_may_be_new(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from edge_far.models.source import load_source

    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    for name in [name for name in weights if name.startswith(("classifier.", "bert.pooler."))]:
        del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert load_source(str(tmp_path), LABELS, 0).architecture == "bert"
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Unavailable, match=r"1 weights are missing .* bert\.encoder\.layer\.1\.output"):
        load_source(str(tmp_path), LABELS, 0)
