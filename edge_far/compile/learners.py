"""Which nodes and heads learn: priming on the first batches of training where the selection needs it, then choice."""

from __future__ import annotations

from collections.abc import Iterator

from edge_far.compile.export_settings import ExportSettings, learning_rate_of
from edge_far.console import Console
from edge_far.far import method
from edge_far.far.above_cut import as_mapping
from edge_far.far.heads import attention_share
from edge_far.far.nodes import block_paths
from edge_far.far.prime import PrimingResult, PrimingSettings, priming_steps
from edge_far.far.select import Selection
from edge_far.models.source import SourceModel
from edge_far.texts.batches import Batch, collate, first_batches
from edge_far.texts.encode import Encoded

__all__ = ["choose_learners", "sample_batches"]

SAMPLE_BATCHES = 8


def choose_learners(
    source: SourceModel, encoded: Encoded, settings: ExportSettings, loss: str, console: Console
) -> tuple[Selection, PrimingResult | None]:
    """Prime where the selection needs it, by the task's `loss`, and leave the model primed or reset as asked."""
    planned = -(-len(encoded) // settings.batch_size) * settings.epochs
    steps = priming_steps(planned, settings.priming)
    return method.choose_learners(
        source.model,
        settings.selection,
        map(as_mapping, _batches(encoded, steps, settings)),
        PrimingSettings(
            steps=steps,
            planned_steps=max(planned, steps),
            learning_rate=learning_rate_of(settings, source),
            retention=settings.retention,
            embeddings=settings.embeddings,
            start=settings.start,
            seed=settings.seed,
            cut=method.cut_of(settings.method, len(block_paths(source.model))),
            attention_retention=_attention_share(settings, source),
            loss=loss,
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
    for indices in first_batches(encoded.lengths, settings.batch_size, settings.seed, count):
        yield collate(encoded, indices)


def sample_batches(encoded: Encoded, settings: ExportSettings) -> Iterator[Batch]:
    """Yield the few batches by which int8 chooses scales: the first of training."""
    return _batches(encoded, SAMPLE_BATCHES, settings)
