"""The schema of a bundle's manifest.json: these dataclasses say what may stand in it; bundle.py checks it."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from edge_far.architectures.registry import ARCHITECTURES
from edge_far.json_file import Count, Name, OneOf, Size, Within

__all__ = [
    "ATTENTION",
    "DROPOUT_FACTOR",
    "FORMAT",
    "TASK_NAMES",
    "TOKEN_LOSSES",
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
    "Prefix",
    "ProbedOperator",
    "Scale",
    "SelectionInfo",
    "TaskInfo",
    "bounds_of",
    "is_product",
]

FORMAT = 7
ATTENTION = {"MultiHeadAttention", "Attention"}
_END_OF_OPERATOR = re.compile(r"[\[(]")  # a kernel is written Operator[attributes](inputs)
Share = Annotated[float, Within(0, 1)]
Seed = Annotated[int, Within(0, 2**63 - 1)]
TASK_NAMES = ("classify", "multilabel", "regress", "tag", "answer")
TOKEN_LOSSES = ("token_softmax", "span")
DROPOUT_FACTOR = "dropout_factor"  # input of the ort/ graphs: 1 with dropout, 0 without


@dataclass(frozen=True)
class FileInfo:
    """Hash and size of one file of the bundle."""

    sha256: str
    bytes: Count


@dataclass(frozen=True)
class ModelInfo:
    """The original model; for `pooling` see far/pooling.py."""

    architecture: Annotated[str, OneOf(*ARCHITECTURES)]
    name: str
    pooling: Annotated[str, OneOf("cls", "mean", "none")]
    blocks: Size
    hidden: Size
    ffn: Size
    heads: Size
    vocabulary: Size
    parameters: Size


@dataclass(frozen=True)
class Scale:
    """Of labels that are numbers: mean and standard deviation of the training data, in the user's unit."""

    mean: Annotated[float, Within(-1e15, 1e15)]
    deviation: Annotated[float, Within(1e-15, 1e15)]


@dataclass(frozen=True)
class TaskInfo:
    """What is learned (tasks/): its name, the form of a label (texts/labels.py), the loss, the outputs of the head.

    The model learns (label - mean) / deviation where there is a `scale`.
    """

    name: Annotated[str, OneOf(*TASK_NAMES)]
    form: Annotated[str, OneOf("name", "names", "number", "tags", "answers")]
    loss: Annotated[str, OneOf("softmax", "sigmoid", "square", "token_softmax", "span")]
    outputs: Size
    scale: Scale | None = None

    @property
    def names_classes(self) -> bool:
        """Say whether targets are numbers of classes, int64 [batch, ...]; else they are float32 [batch, outputs]."""
        return self.loss in ("softmax", "token_softmax")

    @property
    def of_tokens(self) -> bool:
        """Say whether every token has a target and logits of its own."""
        return self.loss in TOKEN_LOSSES

    def logits_shape(self, rows: int, length: int = 0) -> tuple[int, ...]:
        """Return the shape of logits of so many examples, padded to so many tokens."""
        return (rows, length, self.outputs) if self.of_tokens else (rows, self.outputs)

    def targets_shape(self, rows: int, length: int) -> tuple[int, ...]:
        """Return the shape of their targets."""
        shape = self.logits_shape(rows, length)
        return shape[:-1] if self.names_classes else shape


@dataclass(frozen=True)
class SelectionInfo:
    """What trains and how the learners were chosen; the overlap is that of priming's halves, chance is the retention.

    `rung` is the ladder's: head, top-K, far or full; nothing of the first `cut` blocks trains. `attention` is full
    where attention learns whole, or heads; the next three fields are of its heads then, else None and empty. `reason`
    says why this rung was chosen, or is empty where the user named it.
    """

    rung: Name
    cut: Count
    method: Name
    retention: Share
    learners_per_block: tuple[Count, ...]
    embeddings: Annotated[str, OneOf("frozen", "train")]
    start: Annotated[str, OneOf("continue", "reset")]
    priming_steps: Count
    split_half_overlap: Share | None
    seed: Seed
    attention: Annotated[str, OneOf("full", "heads")]
    attention_retention: Share | None
    heads_per_block: tuple[Count, ...]
    head_overlap: Share | None
    reason: str


@dataclass(frozen=True)
class Defaults:
    """Training settings that travel with the bundle; the command line overrides them."""

    learning_rate: Annotated[float, Within(1e-8, 1.0)]
    epochs: Annotated[int, Within(1, 10_000)]
    batch_size: Annotated[int, Within(1, 65_536)]
    warmup_fraction: Annotated[float, Within(0.0, 1.0)]
    weight_decay: Annotated[float, Within(0.0, 1.0)]
    clip_norm: Annotated[float, Within(1e-6, 1e6)]
    seed: Seed
    max_seq_len: Annotated[int, Within(8, 4096)]
    dropout: bool


def bounds_of(setting: str) -> Within:
    """Return the bounds of a field of Defaults that is a number."""
    hint = typing.get_type_hints(Defaults, include_extras=True)[setting]
    bounds = typing.get_args(hint)[1]
    assert isinstance(bounds, Within)
    return bounds


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
    shape: tuple[Size | Annotated[str, OneOf("batch", "sequence", "sequence/8", "batch*sequence")], ...]
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

    @property
    def is_product(self) -> bool:
        """Say whether the work is in floating-point operations."""
        return is_product(_END_OF_OPERATOR.split(self.kernel, maxsplit=1)[0])


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
    `by_rows` says that 8-bit products scale each row by itself: texts of one length give the same numbers together.
    """

    graph: GraphInfo
    sha256: str
    cache: Annotated[str, OneOf("int8", "fp16", "fp32")]
    width: Size
    pooled: bool
    constant_bytes: Count
    embedding_bytes: Count
    by_rows: bool


@dataclass(frozen=True)
class Portable:
    """What the device must know of the portable graphs.

    The first of `steps` is the plain one, `step`. `infer` is the graph of evaluation, without dropout; `probe` is
    what probe.onnx holds. With a `prefix` the steps and `infer` begin with its hidden states. `*_constant_bytes`
    counts the constants a graph reads, embeddings apart; all steps read the same.
    """

    token_types: bool
    frozen_precision: Annotated[str, OneOf("int8", "int8-weights", "fp32-compact", "fp32")]
    parameters: tuple[Parameter, ...]
    masks: tuple[Mask, ...]
    steps: tuple[GraphInfo, ...]
    infer: GraphInfo
    probe: tuple[ProbedOperator, ...]
    step_constant_bytes: Count
    infer_constant_bytes: Count
    embedding_bytes: Count
    prefix: Prefix | None = None


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json; `labels` names the outputs; numbers and answers have none."""

    format: int
    created_by: str
    profile: str
    model: ModelInfo
    task: TaskInfo
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


def is_product(operator: str) -> bool:
    """Say whether an operator's type is that of a matrix product or of an attention, whose work is counted in FLOPs."""
    return operator in ATTENTION or "MatMul" in operator or operator == "Gemm"
