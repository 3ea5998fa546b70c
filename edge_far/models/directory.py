"""Where a model lies: a directory, or the copy of a hub model; and what a directory holds instead of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_far.errors import EdgeFarError, InputMissing, Unavailable
from edge_far.models.files import is_named_here, read_json, read_object
from edge_far.models.guard import guarded, transformers_package

__all__ = ["CONFIG", "Place", "find_place"]

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
_SMALL_FILES = ("*.json", "*.txt", "*.model")
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # the second only where the hub has none of the first
_MODULES = "modules.json"  # of a sentence-transformers directory: which of its folders is what
_OTHER_FORMATS = {
    ".gguf": "a GGUF file",
    ".onnx": "an ONNX model",
    ".h5": "TensorFlow weights",
    ".msgpack": "Flax weights",
}
_SAVE = "save it from PyTorch with model.save_pretrained(DIRECTORY) and tokenizer.save_pretrained(DIRECTORY)"


@dataclass(frozen=True)
class Place:
    """The directory of a model; `hub_name` is None where it is the user's own.

    `whole` is the sentence-transformers directory that it is a part of, or the same directory.
    """

    directory: Path
    whole: Path
    hub_name: str | None = None

    def fetch_weights(self) -> None:
        """Download a hub model's weights; does nothing for a directory of the user's. Raises Unavailable."""
        if self.hub_name is None:
            return
        part = self.directory.relative_to(self.whole)
        for pattern in _WEIGHTS:
            _download(self.hub_name, (str(part / pattern),))
            if any(self.directory.glob(pattern)):
                return


def find_place(model: str) -> Place:
    """Return where `model` lies, with config.json and the tokenizer's files there.

    Raises InputMissing, which says what a directory without a model holds, and Unavailable for a name that the hub
    does not know, for an adapter that lies beside the weights, and where the hub cannot be reached.
    """
    directory = Path(model).expanduser()
    if directory.is_file():
        raise InputMissing("is a file, not a directory", where=model, hint=f"name its directory: {directory.parent}")
    looks_local = model.startswith((".", "/", "~")) or ("/" in model and directory.parent.is_dir())
    if not directory.is_dir() and not looks_local:
        whole = _download(model, _SMALL_FILES)
        place = Place(_transformer_of(whole), whole, model)
    else:
        place = Place(_transformer_of(directory), directory)
    if not is_named_here(place.directory / CONFIG):
        message, hint = _instead(place.directory)
        raise InputMissing(f"no model here: {message}", where=model, hint=hint)
    if is_named_here(place.directory / ADAPTER):
        raise Unavailable(
            f"{_adapter(place.directory)} lies beside the model, and would not be applied",
            where=str(place.directory / ADAPTER),
            hint="merge_and_unload() and save; or where the weights have it inside already, remove this file",
        )
    return place


def sibling_format(directory: Path) -> str | None:
    """Return in words what else a directory without PyTorch's weights holds, or None."""
    for path in sorted(directory.iterdir()):
        if path.suffix in _OTHER_FORMATS:
            return f"{path.name} is {_OTHER_FORMATS[path.suffix]}"
    return None


def _instead(directory: Path) -> tuple[str, str]:
    """Return what is here instead of a model, and what to do."""
    if not directory.exists():
        return "the directory does not exist", "check the path"
    missing = f"{CONFIG} is missing"
    if is_named_here(directory / ADAPTER):
        return _adapter(directory), "load the base model with it, merge_and_unload() and save"
    found = [path.parent for path in directory.glob(f"*/{CONFIG}")]
    models = [path for path in found if _names_a_model(path)] or found
    if models:
        return missing, f"did you mean ./{max(models, key=_age).name}?"
    if other := sibling_format(directory):
        return f"{missing}, and {other}", _SAVE
    if any(directory.glob("*.safetensors")) or any(directory.glob("*.bin")):
        return f"{missing} beside the weights", "copy it from the model these weights were trained from"
    return missing, "name a directory saved by transformers"


def _transformer_of(directory: Path) -> Path:
    """Return the folder of the encoder where an old sentence-transformers directory names one, else the directory."""
    if is_named_here(directory / CONFIG) or not is_named_here(directory / _MODULES):
        return directory
    modules = read_json(directory / _MODULES)
    for module in modules if isinstance(modules, list) else ():
        kind, path = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
        if isinstance(kind, str) and kind.endswith(".Transformer") and isinstance(path, str):
            inside = directory / path
            if inside.resolve().is_relative_to(directory.resolve()) and is_named_here(inside / CONFIG):
                return inside
    return directory


def _names_a_model(directory: Path) -> bool:
    """Say whether config.json is that of a model, and not, for example, of a pooling layer."""
    try:
        return "model_type" in read_object(directory / CONFIG)
    except EdgeFarError:
        return False


def _age(directory: Path) -> tuple[int, str]:
    """Order checkpoint-500 behind checkpoint-60."""
    number = directory.name.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else -1, directory.name


def _adapter(directory: Path) -> str:
    try:
        document: dict[str, Any] = read_object(directory / ADAPTER)
    except EdgeFarError:
        document = {}
    kind, base = document.get("peft_type"), document.get("base_model_name_or_path")
    name = "a LoRA adapter" if kind in ("LORA", None) else f"an adapter ({kind})"
    return f"{name} of {base}" if isinstance(base, str) and base else name


def _download(name: str, patterns: tuple[str, ...]) -> Path:
    transformers_package()
    with guarded(
        "no directory of this name here, and the hub does not give such a model",
        name,
        f"name a local directory with {CONFIG} and model.safetensors, or a hub model while online",
    ):
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=list(patterns)))
