"""What a directory holds instead of a model, told so that the next command works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge_far.errors import InputMissing, Unavailable
from tests.models.conftest import SaveModel, refused

pytestmark = pytest.mark.host

ADAPTER = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"})


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no model here: config.json is missing"),
        ({"adapter_config.json": ADAPTER}, "a LoRA adapter of org/base (load the base model with it, merge_and_unload"),
        ({"adapter_config.json": "{"}, "a LoRA adapter"),
        ({"adapter_config.json": '{"peft_type": "IA3"}'}, "an adapter (IA3)"),
        ({"checkpoint-60/config.json": "{}", "checkpoint-500/config.json": "{}"}, "did you mean ./checkpoint-500?"),
        ({"0_Transformer/config.json": "{}"}, "did you mean ./0_Transformer?"),
        ({"model.Q4.gguf": "x"}, "model.Q4.gguf is a GGUF file (save it from PyTorch"),
        ({"model.onnx": "x"}, "model.onnx is an ONNX model"),
        ({"model.safetensors": "x"}, "config.json is missing beside the weights"),
    ],
)
def test_no_config(files: dict[str, str], says: str, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for name, content in {"README.md": "", **files}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    assert refused(InputMissing, says, model=directory).where == str(directory)


def test_a_path_that_is_no_directory(tmp_path: Path, model: SaveModel) -> None:
    refused(InputMissing, "the directory does not exist", model=tmp_path / "none")
    file = model() / "config.json"
    refused(InputMissing, "is a file", f"name its directory: {file.parent}", model=file)


def test_a_relative_path_below_a_directory_is_no_name_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    refused(InputMissing, "the directory does not exist", model=Path("out/model"))


def test_an_adapter_beside_the_weights(model: SaveModel) -> None:
    directory = model()
    (directory / "adapter_config.json").write_text(ADAPTER)
    refused(Unavailable, "a LoRA adapter of org/base lies beside the model", "merge_and_unload", model=directory)


def test_a_name_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(name: str, **options: object) -> str:
        raise ConnectionError("no route to the host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    refused(Unavailable, "the hub does not give such a model: no route to the host", model=Path("org-model"))


def as_hub(directory: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let a directory be what the hub gives, its weights once they are asked for; return what was asked for.

    `inside` is the folder of the weights with a slash behind it, or nothing.
    """
    import huggingface_hub

    asked: list[list[str]] = []
    weights = directory / f"{inside}model.safetensors"
    away = weights.rename(directory.parent / "weights")

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if f"{inside}model*.safetensors" in allow_patterns:
            shutil.copy(away, weights)
        return str(directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_hub_model_is_checked_before_its_weights_are_fetched(
    model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_far.models.source import load_source

    asked = as_hub(model(), "", monkeypatch)
    model(hidden_act="mish")
    refused(Unavailable, "hidden_act is mish", model=Path("org/model"))
    assert asked == [["*.json", "*.txt", "*.model"]]
    model(hidden_act="gelu")
    assert load_source("org/model", list("abcde"), 0).name == "org/model"
    assert asked[-1] == ["model*.safetensors"]


def as_old_sentence_transformer(directory: Path, mode: str = "mean_tokens") -> Path:
    """Move a model into 0_Transformer, beside modules.json and 1_Pooling, as sentence-transformers wrote until 2021."""
    whole = directory.parent / "sentences"
    shutil.copytree(directory, whole / "0_Transformer")
    module = "sentence_transformers.models"
    (whole / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "name": "0", "path": "0_Transformer", "type": f"{module}.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{module}.Pooling"},
            ]
        )
    )
    (whole / "1_Pooling").mkdir()
    (whole / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    return whole


@pytest.mark.parametrize(("mode", "pooling"), [("mean_tokens", "mean"), ("cls_token", "cls")])
def test_an_old_sentence_transformers_directory(model: SaveModel, mode: str, pooling: str) -> None:
    from edge_far.models.source import load_source

    whole = as_old_sentence_transformer(model(), mode)
    source = load_source(str(whole), list("abcde"), 0)
    assert (source.name, source.pooling, source.head.kind) == ("sentences", pooling, "new")
    assert load_source(str(whole), list("abcde"), 0, pooling="cls").pooling == "cls"
    (whole / "0_Transformer" / "model.safetensors").unlink()
    refused(Unavailable, str(whole / "0_Transformer"), "neither model.safetensors nor", model=whole)


@pytest.mark.parametrize("modules", ["{", "[]", "{}", '[{"type": "x.Transformer", "path": "../my-bert"}]', "[3, null]"])
def test_modules_that_name_no_folder_inside(model: SaveModel, modules: str) -> None:
    whole = as_old_sentence_transformer(model())
    (whole / "modules.json").write_text(modules)
    error, says = (Unavailable, "broken JSON") if modules == "{" else (InputMissing, "did you mean ./0_Transformer?")
    refused(error, says, model=whole)


def test_a_pooling_that_is_not_known_is_said_before_the_weights_are_read(model: SaveModel) -> None:
    whole = as_old_sentence_transformer(model(), "max_tokens")
    (whole / "0_Transformer" / "model.safetensors").unlink()
    refused(Unavailable, "the pooling is pooling_mode_max_tokens", "--pooling", model=whole)


def test_an_old_directory_on_the_hub(model: SaveModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_far.models.source import load_source

    asked = as_hub(as_old_sentence_transformer(model()), "0_Transformer/", monkeypatch)
    assert load_source("org/model", list("abcde"), 0).pooling == "mean"
    assert asked == [["*.json", "*.txt", "*.model"], ["0_Transformer/model*.safetensors"]]
