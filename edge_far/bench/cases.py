"""Which rows a table has: every method on every engine that was asked for, each a process of its own.

full          everything
far-10        FAR with a tenth of the FFN nodes; far-10-heads: and of the attention heads
frozen-ffn    FAR without learners
top-2-heads   the last two blocks' learners, nodes and heads; top-2: attention learns whole
head          the head alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from edge_far.bundles.manifest import SelectionInfo
from edge_far.bundles.rungs import last_blocks
from edge_far.errors import UsageError
from edge_far.profile.run_sections import Compute
from edge_far.profile.schema import settings_of

__all__ = [
    "ENGINES",
    "METHODS",
    "PRECISIONS",
    "Case",
    "Method",
    "cases_for",
    "choose_cases",
    "far_name",
    "method_named",
    "method_of",
]

ENGINES = ("torch", "ort-training", "edge-far")
ATTENTIONS = ("sdpa", "eager")
# How edge-far stores and multiplies the non-learners (profile: compute.frozen_precision).
PRECISIONS: tuple[str, ...] = settings_of(Compute)["frozen_precision"][1].choices
METHODS = ("full", "far", "frozen-ffn", "far-heads", "top-2-heads", "top-1-heads", "head")
_HEADS = "-heads"


@dataclass(frozen=True)
class Method:
    """How much learns: `retention` is 1 for full fine-tuning and 0 for frozen FFNs.

    `rung` is the ladder's (far/method.py), far for full fine-tuning too; with `heads` attention is split by heads.
    """

    name: str
    retention: float
    rung: str = "far"
    heads: bool = False

    @property
    def is_full(self) -> bool:
        """Say whether this is full fine-tuning."""
        return self.retention == 1 and not self.is_rung

    @property
    def is_rung(self) -> bool:
        """Say whether only edge-far has this method: frozen blocks, or attention by heads."""
        return self.has_cut or self.heads

    @property
    def has_cut(self) -> bool:
        """Say whether whole blocks are frozen, and computed once a text."""
        return self.rung != "far"


@dataclass(frozen=True)
class Case:
    """One row before it is measured; `attention` is PyTorch's implementation, None elsewhere.

    `phase` is step, or fill: the frozen blocks compute a batch of texts for the activation cache.
    """

    engine: str
    method: Method
    precision: str
    embeddings: str
    attention: str | None = None
    phase: str = "step"

    @property
    def title(self) -> str:
        """Return the row's name for people."""
        parts = [self.engine, self.method.name, self.attention or self.precision]
        parts += ["embeddings trained"] if self.embeddings == "train" else []
        return " ".join([*parts, *(["fill"] if self.phase == "fill" else [])])


def far_name(retention: float) -> str:
    """Return the method's name for a retention: full, frozen-ffn, or far-10 for a tenth."""
    if retention in (0, 1):
        return "full" if retention else "frozen-ffn"
    return f"far-{100 * retention:g}"


def method_named(name: str, retention: float) -> Method:
    """Return the method of a name, as this module's docstring lists them; raises UsageError.

    far is far-R of `retention`, which is also that of top-K.
    """
    plain = name.removesuffix(_HEADS)
    if name == "head":
        return Method(name, retention, "head")
    if last_blocks(plain) is not None:
        return Method(name, retention, plain, heads=plain != name)
    if plain not in (name, "full"):
        method = _without_heads(plain, name, retention)
        return Method(method.name + _HEADS, method.retention, heads=True)
    return _without_heads(name, name, retention)


def method_of(selection: SelectionInfo) -> Method:
    """Return the method of a bundle, by what its manifest says."""
    heads = selection.attention == "heads"
    rung = "far" if selection.rung == "full" else selection.rung
    name = far_name(selection.retention) if rung == "far" else rung
    return Method(name + _HEADS * heads, selection.retention, rung, heads)


def _without_heads(name: str, told: str, retention: float) -> Method:
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
            f"unknown method {told!r}",
            where="--methods",
            hint="head, top-K, far, far-R for R % of the nodes, frozen-ffn, full; -heads behind top-K or far",
        )
    return Method(far_name(percent / 100), percent / 100)


def cases_for(
    engines: Sequence[str], methods: Sequence[Method], precisions: Sequence[str], embeddings: str
) -> list[Case]:
    """Return the rows in the order of the table.

    PyTorch runs with both of its attention implementations. Full fine-tuning in PyTorch and edge-far runs with
    embeddings trained, which is what a user does, and frozen. Nothing is frozen in it that could be stored in 8
    bits, so edge-far compiles it in fp32, and in fp32-compact where that is asked for. `embeddings` is that of all
    other rows. What only edge-far has, runs in the first of `precisions`; whole frozen blocks add a row, their fill.
    Raises UsageError where the engines have none of the methods.
    """
    cases = []
    for engine in (name for name in ENGINES if name in engines):
        for method in methods:
            if method.is_rung:
                cases += _rung(method, precisions[0], embeddings) if engine == "edge-far" else []
                continue
            trained = ("train", "frozen") if method.is_full and engine != "ort-training" else (embeddings,)
            compiled = ["fp32"]
            if engine == "edge-far" and method.is_full:
                compiled += [name for name in precisions if name == "fp32-compact"]
            elif engine == "edge-far":
                compiled = list(precisions)
            attentions = ATTENTIONS if engine == "torch" else (None,)
            cases += [Case(engine, method, p, e, a) for p in compiled for e in trained for a in attentions]
    if not cases:
        names = ", ".join(method.name for method in methods)
        raise UsageError(f"only edge-far has {names}", where="--engines", hint="add edge-far, or other --methods")
    return list(dict.fromkeys(cases))


def choose_cases(cases: Sequence[Case], wanted: Sequence[str]) -> list[Case]:
    """Return the rows whose titles hold one of `wanted`, with * for anything; all where nothing is wanted.

    Raises UsageError where no title does.
    """
    for words in wanted:
        if not any(_is_titled(case, words) for case in cases):
            titles = ", ".join(case.title for case in cases)
            raise UsageError(f"no row is called {words!r}", where="--only", hint=f"the rows are: {titles}")
    return [case for case in cases if not wanted or any(_is_titled(case, words) for words in wanted)]


def _is_titled(case: Case, words: str) -> bool:
    return fnmatch(f" {case.title} ", f"* {words} *")


def _rung(method: Method, precision: str, embeddings: str) -> list[Case]:
    """Return a method's rows on edge-far; the embeddings stand still where blocks do."""
    if not method.has_cut:
        return [Case("edge-far", method, precision, embeddings)]
    return [Case("edge-far", method, precision, "frozen", phase=phase) for phase in ("step", "fill")]
