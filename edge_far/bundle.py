"""The bundle: one directory that carries a model from the workstation to the device.

    manifest.json             everything below as data, with the SHA-256 of every other file
    tokenizer.json            for the Rust `tokenizers` package
    learners.safetensors      initial trained parameters
    selection.json            which FFN nodes learn, and why
    portable/step.onnx        one micro-batch: loss and gradients    (stock onnxruntime)
    portable/step-lean.onnx   the same step, cheap values computed again, queries, keys and values kept in 16 bits
    portable/step-remat.onnx  the same step, blocks computed again in the backward pass: less memory, more time
    portable/infer.onnx       logits, with the same parameters as inputs
    portable/probe.onnx       one operator of each kind in them, for the device to time
    portable/release.onnx     the original architecture, parameters as external data
    portable/release.json     where each original parameter lies in weights.bin, and how it is composed
    portable/constants.json   where each constant of the steps and infer lies in weights.bin
    portable/weights.bin      original parameters first, then folded and quantised constants; memory-mapped
    ort/                      onnxruntime-training artifacts (optional)

`open_bundle` checks the format version, every path and every hash before a byte is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from edge_far.errors import BundleError, InputMissing
from edge_far.json_file import Count, Damaged, Name, Size, Within, decode, parse_json, read_document

__all__ = [
    "DROPOUT_FACTOR",
    "FORMAT",
    "Bundle",
    "Defaults",
    "FileInfo",
    "GraphInfo",
    "Manifest",
    "Mask",
    "ModelInfo",
    "OperatorCost",
    "Parameter",
    "Polynomial",
    "Portable",
    "ProbedOperator",
    "SelectionInfo",
    "describe_files",
    "open_bundle",
]

FORMAT = 4
DROPOUT_FACTOR = "dropout_factor"  # input of the ort/ graphs: 1 with dropout, 0 without
MANIFEST = "manifest.json"
MANIFEST_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_FILE_NAME = re.compile(r"[\w.-][\w./-]{0,200}", re.ASCII)


@dataclass(frozen=True)
class FileInfo:
    """Hash and size of one file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class ModelInfo:
    """The original model; `architecture` is bert, distilbert or roberta, `pooling` cls or mean (far/pooling.py)."""

    architecture: str
    name: str
    pooling: str
    blocks: Size
    hidden: Size
    ffn: Size
    heads: Size
    vocabulary: Size
    parameters: Size


@dataclass(frozen=True)
class SelectionInfo:
    """What trains and how the learners were chosen; the overlap is that of priming's halves, chance is the retention.

    `rung` is the ladder's: head, top-K, far or full; nothing of the first `cut` blocks trains.
    """

    rung: str
    cut: int
    method: str
    retention: float
    learners_per_block: tuple[int, ...]
    embeddings: str
    start: str
    priming_steps: int
    split_half_overlap: float | None
    seed: int


@dataclass(frozen=True)
class Defaults:
    """Training settings that travel with the bundle; the command line overrides them."""

    learning_rate: Annotated[float, Within(1e-8, 1.0)]
    epochs: Annotated[int, Within(1, 10_000)]
    batch_size: Annotated[int, Within(1, 65_536)]
    warmup_fraction: Annotated[float, Within(0.0, 1.0)]
    weight_decay: Annotated[float, Within(0.0, 1.0)]
    clip_norm: Annotated[float, Within(1e-6, 1e6)]
    seed: Annotated[int, Within(0, 2**63 - 1)]
    max_seq_len: Annotated[int, Within(8, 4096)]
    dropout: bool


@dataclass(frozen=True)
class Parameter:
    """One trained parameter: an input of step.onnx and infer.onnx; `decay` says whether weight decay applies."""

    name: Name
    shape: tuple[Size, ...]
    decay: bool


@dataclass(frozen=True)
class Mask:
    """One dropout mask input: packed bits, uint8, of a shape in 'batch', 'sequence' and their products.

    `factors` names the input float32 [256, 8] that holds the factor of each bit of each byte.
    """

    name: Name
    shape: tuple[Size | str, ...]
    probability: Annotated[float, Within(0.0, 0.999)]
    factors: Name


# A size or an amount of work: ((power of batch, power of sequence, factor), ...), summed.
Power = Annotated[float, Within(0, 8)]
Polynomial = tuple[tuple[Power, Power, Annotated[float, Within(-1e18, 1e18)]], ...]


@dataclass(frozen=True)
class OperatorCost:
    """`count` operators of one kernel in a graph: the work of each, and the size that its speed depends on.

    Work is floating-point operations of products, else bytes (compile/emit/costs.py). The kernel `node` has neither.
    """

    kernel: str
    work: Polynomial
    size: Polynomial
    count: Count


@dataclass(frozen=True)
class ProbedOperator:
    """One operator of portable/probe.onnx, whose node is named by its place in the list: k0, k1, ..."""

    kernel: str
    work: Polynomial
    size: Polynomial


@dataclass(frozen=True)
class GraphInfo:
    """What a graph takes, portable/NAME.onnx: all of the step compute the same, with other peaks and times.

    The peak of live activations at a shape, in bytes, is the largest of `peaks` there; `packing` holds (sequence,
    factor) pairs: so many times the peak is what the arena holds that they lie in.
    """

    name: Name
    peaks: Annotated[tuple[Polynomial, ...], Within(1, 10_000)]
    packing: Annotated[
        tuple[tuple[Annotated[float, Within(0, 2**20)], Annotated[float, Within(1, 1000)]], ...], Within(1, 1000)
    ]
    costs: tuple[OperatorCost, ...]


@dataclass(frozen=True)
class Prefix:
    """What comes before the cut: portable/prefix.onnx, from token ids to hidden states, without dropout.

    `pooled` says that these are one row a text, float32 [batch, width]; else float32 [batch, sequence, width].
    `sha256` is that of the graph and its constants; `cache` is how hidden states are kept: int8, fp16 or fp32.
    """

    graph: GraphInfo
    sha256: str
    cache: str
    width: int
    pooled: bool
    constant_bytes: int
    embedding_bytes: int


@dataclass(frozen=True)
class Portable:
    """What the device must know of the portable graphs.

    The first of `steps` is the plain one, `step`. `infer` is the graph of evaluation, without dropout; `probe` is
    what probe.onnx holds. With a `prefix` the steps and `infer` begin with its hidden states. `*_constant_bytes`
    counts the constants a graph reads, embeddings apart; all steps read the same.
    """

    token_types: bool
    frozen_precision: str
    parameters: tuple[Parameter, ...]
    masks: tuple[Mask, ...]
    steps: tuple[GraphInfo, ...]
    infer: GraphInfo
    probe: tuple[ProbedOperator, ...]
    step_constant_bytes: int
    infer_constant_bytes: int
    embedding_bytes: int
    prefix: Prefix | None = None


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json."""

    format: int
    created_by: str
    profile: str
    model: ModelInfo
    labels: tuple[str, ...]
    selection: SelectionInfo
    defaults: Defaults
    portable: Portable
    released_weights: str
    ort_training: bool
    files: Mapping[str, FileInfo]

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as a JSON document."""
        return dataclasses.asdict(self)

    @property
    def trained_parameters(self) -> int:
        """The number of trained scalars."""
        total = 0
        for parameter in self.portable.parameters:
            count = 1
            for size in parameter.shape:
                count *= size
            total += count
        return total


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle."""

    root: Path
    manifest: Manifest
    fingerprint: str  # SHA-256 of manifest.json, which holds the hashes of everything else

    def path(self, name: str) -> Path:
        """Return the path of one of the bundle's files, by its name in the manifest."""
        if name not in self.manifest.files:
            raise BundleError(f"the bundle has no {name}", where=str(self.root))
        return self.root / name

    def document(self, name: str, kind: Any) -> Any:
        """Return the content of one of the bundle's JSON files as `kind`; raises BundleError."""
        path = self.path(name)
        try:
            return read_document(path, kind)
        except Damaged as error:
            raise BundleError(f"the document is damaged: {error}", where=str(path), hint="export it again") from error


def describe_files(root: Path) -> dict[str, FileInfo]:
    """Return hash and size of every file under `root` but the manifest, by POSIX relative path."""
    return {
        path.relative_to(root).as_posix(): FileInfo(_sha256(path), path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def open_bundle(root: Path) -> Bundle:
    """Open and verify a bundle.

    Raises InputMissing when there is none, BundleError when it is damaged, unsafe, or of a newer format.
    """
    root = Path(root)
    path = root / MANIFEST
    if not path.is_file():
        raise InputMissing(
            "no bundle here: manifest.json is missing",
            where=str(root),
            hint="name a directory made by 'edge-far export'",
        )
    with path.open("rb") as file:
        raw = file.read(MANIFEST_BYTES)  # a longer one is cut, and so no JSON
    try:
        document = parse_json(raw)
    except Damaged as error:
        raise _damaged(str(error), path) from error
    version = document.get("format") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise _damaged(f"format is {version!r}", path)
    if version > FORMAT:
        raise BundleError(
            f"bundle format {version!r} is newer than this edge-far reads ({FORMAT})",
            where=str(path),
            hint="upgrade edge-far on this device",
        )
    if version < FORMAT:
        raise BundleError(
            f"bundle format {version!r} is older than this edge-far reads ({FORMAT})",
            where=str(path),
            hint="export the bundle again",
        )
    try:
        manifest: Manifest = decode(Manifest, document, "manifest")
        _refuse_contradictions(manifest)
    except Damaged as error:
        raise _damaged(str(error), path) from error
    for name, info in manifest.files.items():
        _verify(root, name, info)
    return Bundle(root, manifest, hashlib.sha256(raw).hexdigest())


def _damaged(reason: str, path: Path) -> BundleError:
    return BundleError(f"manifest.json is damaged: {reason}", where=str(path), hint="copy the bundle again")


def _refuse_contradictions(manifest: Manifest) -> None:
    """Raise Damaged for what no single field can say."""
    portable = manifest.portable
    names = [parameter.name for parameter in portable.parameters]
    for what, values in (("manifest.labels", manifest.labels), ("manifest.portable.parameters", names)):
        if not values or len(set(values)) != len(values):
            raise Damaged(f"'{what}' is empty or names one twice")
    if not portable.steps or portable.steps[0].name != "step":
        raise Damaged("'manifest.portable.steps' does not begin with 'step'")


def _verify(root: Path, name: str, info: FileInfo) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not _FILE_NAME.fullmatch(name):
        shown = ascii(name[:60])
        raise BundleError(f"the path {shown} leaves the bundle", where=str(root), hint="do not use this bundle")
    path = root / name
    if not path.is_file() or path.is_symlink() or not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"{name} is missing or not a plain file", where=str(root), hint="copy the bundle again")
    if path.stat().st_size != info.bytes or _sha256(path) != info.sha256:
        raise BundleError("the content does not match manifest.json", where=str(path), hint="copy the bundle again")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
