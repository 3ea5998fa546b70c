"""`--method auto`: the rung is chosen by measurement; and how a new head begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_far.choice.frozen import frozen_outputs
from edge_far.choice.linear_fit import choose_strength
from edge_far.choice.outcome import Choice
from edge_far.choice.search import ChoiceSettings, choose
from edge_far.compile.export_settings import ExportSettings, learning_rate_of
from edge_far.console import Console
from edge_far.far.above_cut import last_linear
from edge_far.far.nodes import architecture_of, block_paths
from edge_far.far.pooling import MeanPooledClassifier
from edge_far.models.source import SourceModel
from edge_far.tasks.interface import Task
from edge_far.texts.encode import Encoded

__all__ = ["FEWEST_EXAMPLES", "choose_rung", "fit_head", "pool", "rates_to_try", "with_choice"]

# The usual learning rate and one above it; a head that begins fitted is near its end.
RATES, HEAD_RATES = (1.0, 10 / 3), (1.0, 10.0)
FEWEST_EXAMPLES = 20
MOST_FITTED = 20_000


def choose_rung(
    source: SourceModel, encoded: Encoded, task: Task, settings: ExportSettings, pooling: str, console: Console
) -> Choice:
    """Try the ladder's rungs on the training data; `pooling` is the model's usual one. See choice/search.py."""
    usual = learning_rate_of(settings, source)
    own_head = source.head.kind != "new" or not _can_be_fitted(source, task)
    both = settings.pooling == "auto" and not own_head and not task.info.of_tokens
    poolings = (pooling, *({"cls", "mean"} - {pooling})) if both else (pooling,)
    rates, head_rates = ((usual,), (usual,)) if settings.learning_rate is not None else rates_to_try(usual)
    return choose(
        source.model,
        encoded,
        task,
        ChoiceSettings(
            poolings=poolings,
            rates=rates,
            head_rates=head_rates,
            retention=settings.retention,
            selection=settings.selection,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            seed=settings.seed,
            dropout=settings.dropout,
            priming=settings.priming,
            own_head=own_head,
            minutes=settings.choose_minutes,
        ),
        console,
    )


def rates_to_try(usual: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the learning rates of the rungs with blocks, and those of the head alone, the usual one first."""
    return tuple(usual * factor for factor in RATES), tuple(usual * factor for factor in HEAD_RATES)


def with_choice(settings: ExportSettings, choice: Choice) -> ExportSettings:
    """Return settings that export what was chosen."""
    trial = choice.chosen.trial
    by_heads = trial.rung.attention == "heads"
    return replace(
        settings,
        method=trial.rung.method,
        pooling=trial.pooling,
        attention=trial.rung.attention,
        attention_retention=trial.rung.attention_retention if by_heads else None,
        learning_rate=trial.learning_rate,
        epochs=trial.epochs,
    )


def fit_head(source: SourceModel, encoded: Encoded, task: Task, settings: ExportSettings, console: Console) -> bool:
    """Begin a new head as a regularised linear fit on the frozen model's outputs where that is asked for; say whether.

    By default the head of the rung `head` is fitted: where more learns, a random one ended higher (docs/lab/ladder.md).
    """
    wanted = settings.head_start == "fitted" or (settings.head_start == "auto" and settings.method == "head")
    if not wanted or source.head.kind != "new" or not _can_be_fitted(source, task):
        return False
    rows = np.arange(len(encoded))
    if len(rows) > MOST_FITTED:
        rows = np.sort(np.random.default_rng(settings.seed).permutation(rows)[:MOST_FITTED])
    cuts = (len(block_paths(source.model)),) if task.info.of_tokens else ()
    frozen = frozen_outputs(source.model, encoded, cuts, console, rows)
    linear = last_linear(source.model)
    fit = choose_strength(*frozen.head_reads(encoded, rows, source.pooling), task, settings.seed)
    fit.put_into(linear)
    console.info(f"head: begins as a linear fit on {len(rows)} texts (C {fit.strength:g})")
    return True


def _can_be_fitted(source: SourceModel, task: Task) -> bool:
    """Say whether the head reads what the frozen outputs hold."""
    return not (task.info.of_tokens and architecture_of(source.model).dense_token_head)


def pool(source: SourceModel, settings: ExportSettings, pooling: str) -> None:
    """Put a new head on the mean of all tokens where that is the pooling; a kept head stays unless mean was asked."""
    if pooling == "mean" and (source.head.kind == "new" or settings.pooling == "mean"):
        source.model = MeanPooledClassifier(source.model, settings.seed)
