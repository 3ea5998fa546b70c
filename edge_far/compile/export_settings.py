"""What `edge-far export` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_far.bundles.manifest import Defaults
from edge_far.far.prime import CLIP_NORM, WARMUP, WEIGHT_DECAY
from edge_far.models.source import SourceModel
from edge_far.profile.document import Profile
from edge_far.texts.data import OUR_NAMES
from edge_far.texts.reading.columns import Columns

__all__ = ["ExportSettings", "learning_rate_of", "usual_learning_rate"]

NARROW_HIDDEN = 512
NARROW_LEARNING_RATE = 3e-4
WIDE_LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class ExportSettings:
    """What `edge-far export` was asked for."""

    model: str
    train: Path
    out: Path
    profile: Profile
    selection: str
    retention: float
    priming: float
    start: str
    embeddings: str
    frozen_precision: str
    max_seq_len: int
    learning_rate: float | None  # None: chosen by the width of the model
    epochs: int
    batch_size: int
    dropout: bool
    seed: int
    reserve_labels: int = 0
    with_ort: bool = True
    first_token_only: bool = True
    method: str = "far"  # a rung of far/method.py, or auto
    pooling: str = "cls"
    attention: str = "full"  # or heads
    attention_retention: float | None = None  # None: the FFN's share, at least one head
    head_start: str = "auto"  # or fitted, random; auto: fitted where the head alone learns
    task: str | None = None  # None: the one that the labels of the training data mean
    columns: Columns = OUR_NAMES
    choose_minutes: float | None = None  # of method auto; None: the work of three full fine-tunings

    def defaults(self, learning_rate: float) -> Defaults:
        """Return the training settings that travel with the bundle."""
        return Defaults(
            learning_rate=learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            warmup_fraction=WARMUP,
            weight_decay=WEIGHT_DECAY,
            clip_norm=CLIP_NORM,
            seed=self.seed,
            max_seq_len=self.max_seq_len,
            dropout=self.dropout,
        )


def learning_rate_of(settings: ExportSettings, source: SourceModel) -> float:
    """Return the rate asked for, or the usual one."""
    return usual_learning_rate(source) if settings.learning_rate is None else settings.learning_rate


def usual_learning_rate(source: SourceModel) -> float:
    """Return the default for this width.

    3e-4 is near the best for MiniLM on CLINC150 (docs/lab/results.md); wider models take the customary smaller rate.
    """
    wide = int(source.model.config.hidden_size) > NARROW_HIDDEN
    return WIDE_LEARNING_RATE if wide else NARROW_LEARNING_RATE
