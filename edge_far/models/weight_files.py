"""The files that hold the weights, checked before they are read: complete, of floats, and those config.json means.

transformers takes the first of model.safetensors, its index, pytorch_model.bin and its index; so does this file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edge_far.errors import Unavailable
from edge_far.json_file import Count, Damaged, decode, parse_json
from edge_far.models.config import ModelConfig
from edge_far.models.directory import sibling_format
from edge_far.models.files import check_file, is_named_here, read_object

__all__ = ["check_weights", "unused_weights"]

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
_CHOICE = (SAFETENSORS, f"{SAFETENSORS}.index.json", PICKLED, f"{PICKLED}.index.json")
MAX_HEADER_BYTES = 100_000_000  # the limit of the package safetensors
_FLOATS = ("F64", "F32", "F16", "BF16")
_WORDS = ("embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight")
_COUNTERS = ("position_ids", "token_type_ids")  # old versions saved these buffers too
_WRAPPERS = {
    "module.": "saved from DataParallel: save model.module instead",
    "_orig_mod.": "saved from torch.compile: save model._orig_mod instead",
    "base_model.model.": "saved with an adapter around it: merge_and_unload() and save",
}
_AGAIN = "download or save the model again"
_CANNOT = "cannot load the model"
SHOWN = 3


@dataclass(frozen=True)
class _Entry:
    """One tensor in the header of a safetensors file, as it is written there."""

    dtype: str
    shape: tuple[Count, ...]
    data_offsets: tuple[Count, Count]


@dataclass(frozen=True)
class _Tensor:
    """What the header of a safetensors file says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def check_weights(model: ModelConfig) -> None:
    """Check the weights beside a config.json as far as can be told without reading them.

    Raises Unavailable, which names the file, InputMissing for a link to nothing, StorageError.
    """
    directory = model.path.parent
    chosen = next((directory / name for name in _CHOICE if is_named_here(directory / name)), None)
    if chosen is None:
        other = sibling_format(directory)
        found = f", but {other}" if other else ""
        raise Unavailable(
            f"{_CANNOT}: neither {SAFETENSORS} nor {PICKLED} is here{found}",
            where=str(directory),
            hint="save it from PyTorch with model.save_pretrained(DIRECTORY)",
        )
    files = _shards(chosen) if chosen.suffix == ".json" else [chosen]
    if SAFETENSORS not in chosen.name:
        for file in files:
            _check_pickled(file)
        return
    tensors: dict[str, _Tensor] = {}
    for file in files:
        found_here = _read_header(file)
        _refuse_quantised(file, found_here)
        tensors |= found_here
    _refuse_wrapped(chosen, tensors)
    _compare_embeddings(chosen, tensors, model)


def unused_weights(names: Iterable[str]) -> str | None:
    """Return a sentence on the weights of the file that the model has no place for, or None."""
    foreign = sorted(name for name in names if not name.endswith(_COUNTERS))
    if not foreign:
        return None
    more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
    return f"weights in the file that are not used: {', '.join(foreign[:SHOWN])}{more}"


def _shards(index: Path) -> list[Path]:
    """Return the files that an index names, all of which are here."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise Unavailable(f"{_CANNOT}: weight_map names no files", where=str(index), hint=_AGAIN)
    names = sorted(set(places.values()))
    for name in names:
        if len(PurePosixPath(name).parts) != 1 or name in ("..", "."):
            raise Unavailable(f"{_CANNOT}: weight_map names {name!r}", where=str(index), hint=_AGAIN)
    missing = [name for name in names if not is_named_here(index.parent / name)]
    if missing:
        raise Unavailable(
            f"{_CANNOT}: {len(missing)} of {len(names)} files are missing: {', '.join(missing[:SHOWN])}",
            where=str(index),
            hint="download them too",
        )
    return [index.parent / name for name in names]


def _read_header(path: Path) -> dict[str, _Tensor]:
    """Return the tensors of a safetensors file that is as long as its header says."""
    size = check_file(path)
    not_one = Unavailable(f"{_CANNOT}: not a safetensors file", where=str(path), hint=_AGAIN)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > MAX_HEADER_BYTES:
            raise not_one
        raw = file.read(length)
    end = 0
    tensors = {}
    try:
        if len(raw) == length:
            for name, entry in decode(dict[str, Any], parse_json(raw)).items():
                if name != "__metadata__":
                    found: _Entry = decode(_Entry, entry, "header")
                    tensors[name] = _Tensor(found.dtype, found.shape)
                    end = max(end, found.data_offsets[1])
    except Damaged as error:
        raise not_one from error
    if len(raw) < length or size < 8 + length + end:
        raise Unavailable(
            f"{_CANNOT}: the file is cut short: {size:,} of {8 + length + end:,} bytes or more",
            where=str(path),
            hint="download or copy it again",
        )
    return tensors


def _refuse_quantised(path: Path, tensors: dict[str, _Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS and not name.endswith(_COUNTERS):
            raise Unavailable(
                f"{_CANNOT}: {name} is of type {tensor.dtype}: saved quantised",
                where=str(path),
                hint="save it in float32 or float16 first",
            )


def _refuse_wrapped(path: Path, tensors: dict[str, _Tensor]) -> None:
    for prefix, advice in _WRAPPERS.items():
        if tensors and all(name.startswith(prefix) for name in tensors):
            raise Unavailable(f"{_CANNOT}: all names begin with '{prefix}'", where=str(path), hint=advice)


def _compare_embeddings(path: Path, tensors: dict[str, _Tensor], model: ModelConfig) -> None:
    """Compare the one table whose size people change; transformers compares all others as it loads."""
    width = model.architecture.table_width_key
    wanted = (model.vocabulary, int(getattr(model.config, width)))
    for name, tensor in tensors.items():
        if name.endswith(_WORDS) and tensor.shape != wanted:
            raise Unavailable(
                f"{_CANNOT}: {name} is {list(tensor.shape)}, and config.json says {list(wanted)} (vocab_size, {width})",
                where=str(path),
                hint="name a directory whose config.json and weights belong together",
            )


def _check_pickled(path: Path) -> None:
    """Refuse what is neither torch's archive nor its older form; weights alone are read of it, never code."""
    check_file(path)
    with path.open("rb") as file:
        beginning = file.read(2)
    if beginning == b"PK" and not zipfile.is_zipfile(path):
        raise Unavailable(f"{_CANNOT}: the file is cut short", where=str(path), hint="download or copy it again")
    if beginning != b"PK" and not beginning.startswith(b"\x80"):
        raise Unavailable(f"{_CANNOT}: not a file of torch.save", where=str(path), hint=_AGAIN)
