"""The released model: the original architecture with the trained learners put back among the non-learners.

weights.bin of a bundle begins with every original parameter as it was at reconfiguration; portable/release.json of the
bundle says where, and how each is composed (far/reconfigure.py, `original_layout`). A parameter that holds learners is
read, the learners' rows or columns are overwritten, and all others stay as they were, bit for bit.

The release has a release.json of its own, which is another file: what an application must know of the model.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort

from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.options import bare_options, load_session
from edge_far.errors import BundleError, DataError
from edge_far.json_file import Count, Size, Within
from edge_far.storage import staged_directory, storage_error, write_json
from edge_far.texts.batches import Batch
from edge_far.texts.encode import Encoder
from edge_far.texts.places import LABELS_FILE

__all__ = [
    "FACTS_FILE",
    "FACTS_FORMAT",
    "MODEL_FILE",
    "ReleasedModel",
    "compose",
    "original_parameters",
    "release_facts",
    "write_release",
]

# The files of a release.
MODEL_FILE, WEIGHTS_FILE = "model.onnx", "weights.bin"
TOKENIZER_FILE, FACTS_FILE = "tokenizer.json", "release.json"
FACTS_FORMAT = 2
POOLINGS = {"cls": "first token", "mean": "mean", "none": "none"}
# Of a bundle: where each original parameter lies, and how it is composed.
PARAMETERS = "portable/release.json"
OLDEST_ONNXRUNTIME = "1.19.2"  # tests run a release with it, in the workstation's environment
FLOAT_BYTES = 4


@dataclass(frozen=True)
class _Region:
    """Where one original parameter lies in weights.bin, float32."""

    offset: Count
    length: Count
    shape: tuple[Count, ...]


@dataclass(frozen=True)
class _Composition:
    """An original parameter of two: along `axis` the group's learners of a block are the learner's, others frozen."""

    group: str
    block: Count
    axis: Annotated[int, Within(0, 1)]
    learner: str | None
    frozen: str | None


@dataclass(frozen=True)
class _Joined:
    """An original matrix or bias of several of equally many rows, one below the other."""

    joined: tuple[_Composition | str, ...]


@dataclass(frozen=True)
class _Group:
    """Units of one kind, a list a block: FFN nodes have one row or column each, attention heads `width`."""

    width: Size
    counts: tuple[Size, ...]
    learners: tuple[tuple[Count, ...], ...]

    def learning_elements(self, block: int) -> np.ndarray:
        """Return the rows or columns of a block that its learners are, int64."""
        units = np.array(self.learners[block], np.int64)
        return (units[:, None] * self.width + np.arange(self.width)).reshape(-1)


@dataclass(frozen=True)
class _Layout:
    """What far/reconfigure.py's `original_layout` says; a composition that is a text is one parameter unchanged."""

    version: Count
    groups: Mapping[str, _Group]
    parameters: Mapping[str, str | _Joined | _Composition]


@dataclass(frozen=True)
class _ReleaseDocument:
    """The content of release.json of a bundle."""

    regions: Mapping[str, _Region]
    layout: _Layout


class ReleasedModel:
    """Runs the released model from a bundle and learners, without writing it to disk."""

    def __init__(self, bundle: Bundle, learners: Mapping[str, np.ndarray], threads: int) -> None:
        """Compose the trained parameters in memory; the others stay mapped from the bundle."""
        self.token_types = bundle.manifest.portable.token_types
        options = bare_options(threads)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._arrays = compose(bundle, learners)  # the session reads these arrays in place
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in self._arrays.values()]
        options.add_external_initializers(list(self._arrays), values)
        self._values = values
        self._session = load_session(bundle.path("portable/release.onnx"), options)

    def logits(self, batch: Batch) -> np.ndarray:
        """Return float32 [B, outputs]; raises DataError where the model cannot read the batch."""
        try:
            (logits,) = self._session.run(["logits"], batch.model_inputs(token_types=self.token_types))
        except Exception as error:  # ONNX Runtime's exceptions share no useful base class
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"the model cannot read a text: {reason}", hint="do bundle and texts belong together?"
            ) from error
        return np.asarray(logits)


def compose(bundle: Bundle, learners: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every original parameter that holds trained numbers, float32, by its original name."""
    return _compose(bundle, _read_document(bundle), learners)


def original_parameters(bundle: Bundle, learners: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every original parameter, float32, by its name in torch; what was not trained stays mapped."""
    document = _read_document(bundle)
    weights = np.memmap(bundle.path(f"portable/{WEIGHTS_FILE}"), np.uint8, mode="r")
    composed = _compose(bundle, document, learners)
    return {
        name: composed[name]
        if name in composed
        else weights[region.offset : region.offset + region.length].view("<f4").reshape(region.shape)
        for name, region in document.regions.items()
    }


def _compose(bundle: Bundle, document: _ReleaseDocument, learners: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    weights = np.memmap(bundle.path(f"portable/{WEIGHTS_FILE}"), np.uint8, mode="r")
    layout = document.layout
    composed: dict[str, np.ndarray] = {}
    for name, region in document.regions.items():
        composition = layout.parameters[name]
        if isinstance(composition, str):
            if composition in learners:
                composed[name] = _checked(learners[composition], region.shape, name)
            continue
        parts = composition.joined if isinstance(composition, _Joined) else (composition,)
        if not any(part in learners if isinstance(part, str) else part.learner for part in parts):
            continue
        stored = weights[region.offset : region.offset + region.length]
        array = np.frombuffer(stored.tobytes(), np.float32).reshape(region.shape).copy()
        for part, rows in zip(parts, np.split(array, len(parts)), strict=True):
            _put(part, rows, layout, learners)
        composed[name] = array
    return composed


def _put(part: str | _Composition, array: np.ndarray, layout: _Layout, learners: Mapping[str, np.ndarray]) -> None:
    """Write what was trained of a parameter, or of its part, over the original's numbers."""
    name = part if isinstance(part, str) else part.learner
    if name is None or (isinstance(part, str) and name not in learners):
        return
    places: list[Any] = [slice(None)] * array.ndim
    if not isinstance(part, str):
        places[part.axis] = layout.groups[part.group].learning_elements(part.block)
    if name not in learners:
        raise BundleError(f"the run has no {name}", hint="it was trained from another bundle")
    array[tuple(places)] = _checked(learners[name], array[tuple(places)].shape, name)


def _read_document(bundle: Bundle) -> _ReleaseDocument:
    """Return release.json, of which every region lies in weights.bin and every learner in its parameter."""
    document: _ReleaseDocument = bundle.document(PARAMETERS, _ReleaseDocument)
    size = bundle.manifest.files[f"portable/{WEIGHTS_FILE}"].bytes
    for name, region in document.regions.items():
        fits = region.length == math.prod(region.shape) * FLOAT_BYTES and region.offset + region.length <= size
        composition = document.layout.parameters.get(name)
        if not fits or composition is None or not _is_composed(composition, region.shape, document.layout):
            message = f"the document is damaged: '{ascii(name)[1:-1]:.80}' does not fit {WEIGHTS_FILE} or its parts"
            raise BundleError(message, where=str(bundle.root / PARAMETERS), hint="export it again")
    if not document.regions:
        raise BundleError("names no parameters", where=str(bundle.root / PARAMETERS), hint="export it again")
    return document


def _is_composed(composition: str | _Joined | _Composition, shape: tuple[int, ...], layout: _Layout) -> bool:
    if isinstance(composition, str):
        return True
    if isinstance(composition, _Joined):
        count = len(composition.joined)
        if not count or not shape or shape[0] % count:
            return False
        return all(_is_composed(part, (shape[0] // count, *shape[1:]), layout) for part in composition.joined)
    group = layout.groups.get(composition.group)
    if group is None or composition.axis >= len(shape) or composition.block >= len(group.learners):
        return False
    return all((unit + 1) * group.width <= shape[composition.axis] for unit in group.learners[composition.block])


def release_facts(bundle: Bundle, threshold: float | None = None, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Return what an application must know to run the released model: the content of its release.json.

    `labels` name the outputs where they are not the bundle's.
    """
    manifest = bundle.manifest
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if manifest.portable.token_types else [])]
    encoder = Encoder(bundle.path(TOKENIZER_FILE), manifest.defaults.max_seq_len)
    shape = ["batch", *(["sequence"] if manifest.task.of_tokens else []), manifest.task.outputs]
    return {
        "format": FACTS_FORMAT,
        "bundle": bundle.fingerprint,
        "model": manifest.model.name,
        "architecture": manifest.model.architecture,
        "weights": manifest.released_weights,
        "task": manifest.task.name,
        "scale": None if manifest.task.scale is None else asdict(manifest.task.scale),
        "threshold": threshold,
        "labels": list(labels or manifest.labels),
        "inputs": [{"name": name, "type": "int64", "shape": ["batch", "sequence"]} for name in names],
        "outputs": [{"name": "logits", "type": "float32", "shape": shape}],
        "max_seq_len": manifest.defaults.max_seq_len,
        "truncation_side": "right",
        "padding_side": "right",
        "padding_id": encoder.pad_id,
        "pooling": POOLINGS[manifest.model.pooling],
        "oldest_onnxruntime": OLDEST_ONNXRUNTIME,
    }


def write_release(
    bundle: Bundle,
    learners: Mapping[str, np.ndarray],
    out: Path,
    threshold: float | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Write a directory that any ONNX Runtime loads: model.onnx, weights.bin, tokenizer.json and two JSON files.

    labels.json has the labels in the order of the logits, release.json the `release_facts`, with the `threshold` of a
    task that has one; `labels` are the bundle's where none are given. Raises OutputExists or StorageError.
    """
    layout = _read_document(bundle)
    end = max(region.offset + region.length for region in layout.regions.values())
    with staged_directory(out) as staging:
        try:
            shutil.copyfile(bundle.path("portable/release.onnx"), staging / MODEL_FILE)
            shutil.copyfile(bundle.path(TOKENIZER_FILE), staging / TOKENIZER_FILE)
            with (
                bundle.path(f"portable/{WEIGHTS_FILE}").open("rb") as source,
                (staging / WEIGHTS_FILE).open("wb") as target,
            ):
                _copy_bytes(source, target, end)
                for name, array in _compose(bundle, layout, learners).items():
                    target.seek(layout.regions[name].offset)
                    target.write(np.ascontiguousarray(array, "<f4").tobytes())
        except OSError as error:
            raise storage_error(error, out) from error
        write_json(staging / LABELS_FILE, list(labels or bundle.manifest.labels))
        write_json(staging / FACTS_FILE, release_facts(bundle, threshold, labels))


def _copy_bytes(source: Any, target: Any, count: int) -> None:
    while count > 0:
        block = source.read(min(count, 1 << 20))
        if not block:
            raise BundleError("weights.bin ends before its last parameter")
        target.write(block)
        count -= len(block)


def _checked(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if array.shape != shape or array.dtype != np.float32:
        raise BundleError(f"learners hold {name} as {array.dtype}{list(array.shape)}, not float32{list(shape)}")
    return array
