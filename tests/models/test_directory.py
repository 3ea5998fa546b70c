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


def test_a_hub_model_is_checked_before_its_weights_are_fetched(
    model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    from edge_far.models.source import load_source

    directory, asked = model(), []
    weights = directory / "model.safetensors"
    away = weights.rename(directory.parent / "weights")

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if "model*.safetensors" in allow_patterns:
            shutil.copy(away, weights)
        return str(directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model(hidden_act="mish")
    refused(Unavailable, "hidden_act is mish", model=Path("org/model"))
    assert asked == [["*.json", "*.txt", "*.model"]]
    model(hidden_act="gelu")
    assert load_source("org/model", list("abcde"), 0).name == "org/model"
    assert asked[-1] == ["model*.safetensors"]
