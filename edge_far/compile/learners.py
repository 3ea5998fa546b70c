"""Which nodes and heads learn: priming on the first batches of training where the selection needs it, then choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_far.compile.export_settings import ExportSettings, learning_rate_of
from edge_far.console import Console
from edge_far.far.heads import attention_share
from edge_far.far.method import cut_of, select_above_cut
from edge_far.far.nodes import block_paths
from edge_far.far.prime import PrimingResult, PrimingSettings, prime, priming_steps
from edge_far.far.select import Selection
from edge_far.models.source import SourceModel
from edge_far.texts.batches import Batch, collate, plan_epoch
from edge_far.texts.encode import Encoded

__all__ = ["choose_learners", "sample_batches"]

SAMPLE_BATCHES = 8


def choose_learners(
    source: SourceModel, encoded: Encoded, settings: ExportSettings, console: Console
) -> tuple[Selection, PrimingResult | None]:
    """Prime where the selection needs it, and leave the model primed or reset as asked."""
    blocks = len(block_paths(source.model))
    cut = cut_of(settings.method, blocks)
    share = _attention_share(settings, source)
    to_choose = any(0 < retention < 1 for retention in (settings.retention, share) if retention is not None)
    result = None
    if settings.selection == "far" and to_choose and cut < blocks:
        result = _prime(source, encoded, settings, console, cut, share)
    selection = select_above_cut(
        source.model,
        settings.selection,
        settings.retention,
        share,
        cut,
        metrics=result.metrics if result is not None else None,
        head_metrics=result.heads.metrics if result is not None and result.heads is not None else None,
        seed=settings.seed,
    )
    return selection, result


def _prime(
    source: SourceModel, encoded: Encoded, settings: ExportSettings, console: Console, cut: int, share: float | None
) -> PrimingResult:
    per_epoch = -(-len(encoded) // settings.batch_size)
    planned = per_epoch * settings.epochs
    steps = priming_steps(planned, settings.priming)
    return prime(
        source.model,
        map(_as_mapping, _batches(encoded, steps, settings)),
        PrimingSettings(
            steps=steps,
            planned_steps=max(planned, steps),
            learning_rate=learning_rate_of(settings, source),
            retention=settings.retention,
            embeddings=settings.embeddings,
            start=settings.start,
            seed=settings.seed,
            cut=cut,
            attention_retention=share,
        ),
        console,
    )


def _attention_share(settings: ExportSettings, source: SourceModel) -> float | None:
    """Return the share of heads that learn, or None where attention learns whole."""
    if settings.attention == "full":
        return None
    heads = int(source.model.config.num_attention_heads)
    return attention_share(settings.attention_retention, settings.retention, heads)


def _batches(encoded: Encoded, count: int, settings: ExportSettings) -> Iterator[Batch]:
    """Yield the batches that the first steps of training would see."""
    epoch = 0
    while count > 0:
        for indices in plan_epoch(encoded.lengths, settings.batch_size, settings.seed, epoch)[:count]:
            yield collate(encoded, indices)
            count -= 1
        epoch += 1


def _as_mapping(batch: Batch) -> Mapping[str, Any]:
    """Return a batch as priming reads it."""
    return {**batch.model_inputs(token_types=batch.token_type_ids is not None), "labels": batch.labels}


def sample_batches(encoded: Encoded, settings: ExportSettings) -> Iterator[Batch]:
    """Yield the few batches by which int8 chooses scales: the first of training."""
    return _batches(encoded, SAMPLE_BATCHES, settings)
