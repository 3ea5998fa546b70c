"""Which rows a table has: every method on every engine that was asked for, each a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_far.errors import UsageError
from edge_far.profile.run_sections import Compute
from edge_far.profile.schema import settings_of

__all__ = ["ENGINES", "PRECISIONS", "Case", "Method", "cases_for", "far_name", "method_named"]

ENGINES = ("torch", "ort-training", "edge-far")
ATTENTIONS = ("sdpa", "eager")
# How edge-far stores and multiplies the non-learners (profile: compute.frozen_precision).
PRECISIONS: tuple[str, ...] = settings_of(Compute)["frozen_precision"][1].choices


@dataclass(frozen=True)
class Method:
    """How much learns: `retention` is 1 for full fine-tuning and 0 for frozen FFNs."""

    name: str
    retention: float

    @property
    def is_full(self) -> bool:
        """Say whether this is full fine-tuning."""
        return self.retention == 1


@dataclass(frozen=True)
class Case:
    """One row before it is measured; `attention` is PyTorch's implementation, None elsewhere."""

    engine: str
    method: Method
    precision: str
    embeddings: str
    attention: str | None = None

    @property
    def title(self) -> str:
        """Return the row's name for people."""
        parts = [self.engine, self.method.name, self.attention or self.precision]
        return " ".join([*parts, *(["embeddings trained"] if self.embeddings == "train" else [])])


def far_name(retention: float) -> str:
    """Return the method's name for a retention: full, frozen-ffn, or far-10 for a tenth."""
    if retention in (0, 1):
        return "full" if retention else "frozen-ffn"
    return f"far-{100 * retention:g}"


def method_named(name: str, retention: float) -> Method:
    """Return the method of a name: full, frozen-ffn, far (of `retention`) or far-R for R %; raises UsageError."""
    if name == "far":
        return Method(far_name(retention), retention)
    if name in ("full", "frozen-ffn"):
        return Method(name, float(name == "full"))
    try:
        percent = float(name.removeprefix("far-"))
    except ValueError:
        percent = -1.0
    if not name.startswith("far-") or not 0 < percent < 100:
        raise UsageError(
            f"unknown method {name!r}", where="--methods", hint="full, frozen-ffn, far, or far-R for R % of the nodes"
        )
    return Method(far_name(percent / 100), percent / 100)


def cases_for(
    engines: Sequence[str], methods: Sequence[Method], precisions: Sequence[str], embeddings: str
) -> list[Case]:
    """Return the rows in the order of the table.

    PyTorch runs with both of its attention implementations. Full fine-tuning in PyTorch and edge-far runs with
    embeddings trained, which is what a user does, and frozen. Nothing is frozen in it that could be stored in 8
    bits, so edge-far compiles it in fp32, and in fp32-compact where that is asked for. `embeddings` is that of all
    other rows.
    """
    cases = []
    for engine in (name for name in ENGINES if name in engines):
        for method in methods:
            trained = ("train", "frozen") if method.is_full and engine != "ort-training" else (embeddings,)
            compiled = ["fp32"]
            if engine == "edge-far" and method.is_full:
                compiled += [name for name in precisions if name == "fp32-compact"]
            elif engine == "edge-far":
                compiled = list(precisions)
            attentions = ATTENTIONS if engine == "torch" else (None,)
            cases += [Case(engine, method, p, e, a) for p in compiled for e in trained for a in attentions]
    return list(dict.fromkeys(cases))
