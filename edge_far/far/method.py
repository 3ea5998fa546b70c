"""How much trains: the ladder's rungs by name, and the block below which everything is frozen.

head    the head alone, on the pooled output
top-K   the learners of the last K blocks, and the head
far     the learners of all blocks, and the head
full    everything, embeddings too
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from edge_far.bundles.rungs import RUNGS, last_blocks
from edge_far.console import Console
from edge_far.errors import ConfigError
from edge_far.far.heads import find_attention_blocks
from edge_far.far.nodes import Units, architecture_of, block_paths, find_ffn_blocks
from edge_far.far.prime import Batch, PrimingResult, PrimingSettings, prime
from edge_far.far.select import Selection, select_learners

__all__ = ["choose_learners", "cut_of", "learning_modules", "refuse_unfit", "select_above_cut"]


def cut_of(method: str, blocks: int) -> int:
    """Return the number of blocks below the cut, from 0 (all learn) to `blocks` (the head alone learns).

    Raises ConfigError for a name that is no rung, and for more last blocks than there are.
    """
    if method in ("far", "full"):
        return 0
    if method == "head":
        return blocks
    last = last_blocks(method)
    if last is None:
        raise ConfigError(f"'{method}' is not a method", where="--method", hint=f"one of auto, {RUNGS}")
    if last > blocks:
        raise ConfigError(f"the model has {blocks} blocks, not {last}", where="--method", hint="use --method far")
    return blocks - last


def refuse_unfit(model: nn.Module, method: str, attention: str) -> None:
    """Raise ConfigError for a rung, or for attention by heads, that an architecture does not have."""
    architecture = architecture_of(model)
    if architecture.one_block and last_blocks(method) is not None:
        raise ConfigError(
            f"all blocks of {architecture.title} are one and the same: it has no last ones",
            where="--method",
            hint="use --method head, far or full",
        )
    if attention == "heads" and not architecture.heads_part:
        raise ConfigError(
            f"the heads of {architecture.title} cannot be parted: its attention holds its LayerNorm",
            where="--attention",
            hint="use --attention full",
        )


def choose_learners(
    model: nn.Module,
    how: str,
    batches: Iterable[Batch],
    settings: PrimingSettings,
    console: Console,
    *,
    halves: bool = True,
) -> tuple[Selection, PrimingResult | None]:
    """Choose the learners above `settings.cut`; prime where the choice needs it, which leaves the model as it says.

    `batches` and `halves` are prime's; without priming no batch is drawn, and there is no result.
    """
    shares = [share for share in (settings.retention, settings.attention_retention) if share is not None]
    result = None
    if how == "far" and any(0 < share < 1 for share in shares) and settings.cut < len(block_paths(model)):
        result = prime(model, batches, settings, console, halves=halves)
    selection = select_above_cut(
        model,
        how,
        settings.retention,
        settings.attention_retention,
        settings.cut,
        metrics=result.metrics if result is not None else None,
        head_metrics=result.heads.metrics if result is not None and result.heads is not None else None,
        seed=settings.seed,
    )
    return selection, result


def select_above_cut(
    model: nn.Module,
    how: str,
    retention: float,
    attention_retention: float | None,
    cut: int,
    *,
    metrics: Sequence[np.ndarray] | None = None,
    head_metrics: Sequence[np.ndarray] | None = None,
    seed: int = 0,
) -> Selection:
    """Choose the learners of all blocks by select.select_learners; those below the cut have none.

    Without `attention_retention` attention learns whole. Metrics are those of the blocks above the cut; where there is
    nothing to choose, none are needed.
    """
    selection = _select(how, retention, find_ffn_blocks(model)[cut:], metrics, seed)
    if attention_retention is not None:
        blocks = find_attention_blocks(model)[cut:]
        selection = replace(selection, heads=_select(how, attention_retention, blocks, head_metrics, seed))
    return _below_cut_frozen(selection, cut)


def _select(
    how: str, retention: float, blocks: Sequence[Units], metrics: Sequence[np.ndarray] | None, seed: int
) -> Selection:
    if how == "far" and (not 0 < retention < 1 or not blocks):
        return replace(select_learners("first", retention, blocks), method=how)
    return select_learners(how, retention, blocks, metrics, seed)


def _below_cut_frozen(selection: Selection, cut: int) -> Selection:
    none = (np.zeros(0, np.int64),) * cut
    return Selection(
        selection.method,
        selection.retention,
        (*none, *selection.learners),
        (*[None] * cut, *selection.metrics),
        None if selection.heads is None else _below_cut_frozen(selection.heads, cut),
    )


def learning_modules(model: nn.Module, cut: int, trained: list[str]) -> list[str]:
    """Return the paths of the modules with which learning begins: the first block above the cut, or the head's."""
    paths = block_paths(model)
    if cut < len(paths):
        return [paths[cut]]
    return sorted({name.rpartition(".")[0] for name in trained})
