"""The released model: the original architecture with the trained learners put back among the non-learners.

weights.bin of a bundle begins with every original parameter as it was at reconfiguration; portable/release.json of the
bundle says where, and how each is composed (far/reconfigure.py, `original_layout`). A parameter that holds learners is
read, the learners' rows or columns are overwritten, and all others stay as they were, bit for bit.

How a release is written as files: release_files.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime as ort

from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.options import bare_options, load_session
from edge_far.errors import BundleError, DataError
from edge_far.json_file import Count, Size, Within
from edge_far.texts.batches import Batch

__all__ = ["Part", "ReleasedModel", "compose", "original_parameters", "parts_of"]

# Of a bundle: the original parameters, where each lies in them, how it is composed, and how fewer bits hold it.
WEIGHTS, PARAMETERS = "portable/weights.bin", "portable/release.json"
FLOAT_BYTES, PAGE = 4, 4096
FORM_BYTES = {"float32": 4, "float16": 2, "int8": 1, "int8-transposed": 1}
SCALES = ("scales", "scales-column")


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
class Part:
    """Where a release's weights file holds a parameter, and in which form (release_files.py), in bytes."""

    parameter: str
    form: Literal["float32", "float16", "int8", "int8-transposed", "scales", "scales-column"]
    offset: Count
    length: Count


@dataclass(frozen=True)
class _ReleaseDocument:
    """The content of release.json of a bundle."""

    regions: Mapping[str, _Region]
    layout: _Layout
    precisions: Mapping[str, tuple[Part, ...]]


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
    weights = np.memmap(bundle.path(WEIGHTS), np.uint8, mode="r")
    composed = _compose(bundle, document, learners)
    return {
        name: composed[name]
        if name in composed
        else weights[region.offset : region.offset + region.length].view("<f4").reshape(region.shape)
        for name, region in document.regions.items()
    }


def parts_of(bundle: Bundle, precision: str) -> tuple[Part, ...]:
    """Return what a release's weights file holds in a precision; raises BundleError where the bundle has none such."""
    document = _read_document(bundle)
    if precision == "fp32":
        return tuple(Part(name, "float32", region.offset, region.length) for name, region in document.regions.items())
    if precision not in document.precisions:
        raise BundleError(f"the bundle has no release in {precision}", where=str(bundle.root), hint="export it again")
    return document.precisions[precision]


def _compose(bundle: Bundle, document: _ReleaseDocument, learners: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    weights = np.memmap(bundle.path(WEIGHTS), np.uint8, mode="r")
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
    size = bundle.manifest.files[WEIGHTS].bytes
    for name, region in document.regions.items():
        fits = region.length == math.prod(region.shape) * FLOAT_BYTES and region.offset + region.length <= size
        composition = document.layout.parameters.get(name)
        if not fits or composition is None or not _is_composed(composition, region.shape, document.layout):
            message = f"the document is damaged: '{ascii(name)[1:-1]:.80}' does not fit weights.bin or its parts"
            raise BundleError(message, where=str(bundle.root / PARAMETERS), hint="export it again")
    if not document.regions:
        raise BundleError("names no parameters", where=str(bundle.root / PARAMETERS), hint="export it again")
    for precision, parts in document.precisions.items():
        end = 0
        for part in parts:
            found = document.regions.get(part.parameter)
            if found is None or part.length != _length(part, found) or not 0 <= part.offset - end < PAGE:
                message = f"the document is damaged: '{ascii(part.parameter)[1:-1]:.80}' does not fit its {precision}"
                raise BundleError(message, where=str(bundle.root / PARAMETERS), hint="export it again")
            end = part.offset + part.length
    return document


def _length(part: Part, region: _Region) -> int:
    """Return how many bytes a parameter takes in a form."""
    if part.form in SCALES:
        return (region.shape[0] if region.shape else 1) * FLOAT_BYTES
    return math.prod(region.shape) * FORM_BYTES[part.form]


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


def _checked(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if array.shape != shape or array.dtype != np.float32:
        raise BundleError(f"learners hold {name} as {array.dtype}{list(array.shape)}, not float32{list(shape)}")
    return array
