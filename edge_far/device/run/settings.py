"""What a training run was asked for: the bundle's defaults, the command line's wishes, and where each came from."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import bounds_of
from edge_far.device.optimizers.registry import DEFAULT_OPTIMIZER, OPTIMIZERS
from edge_far.device.planning.plan import Choice, Plan
from edge_far.errors import ConfigError, InputMissing
from edge_far.json_file import Count, Damaged, Within, read_document
from edge_far.storage import write_json

__all__ = ["STEPS", "RunRecord", "TrainSettings", "load_record", "resolve_settings", "store_record"]

LENGTH = re.compile(r"[1-9][0-9]{0,5}")  # a padded length, as the name of a key
_SAME_COMMAND = "repeat the first command with --resume, or start a new run in another directory"

STEPS = Within(1, 10**9)  # of --max-steps
_NUMBERS = (
    *("epochs", "batch_size", "learning_rate", "warmup_fraction", "weight_decay"),
    *("clip_norm", "seed", "max_seq_len"),
)
_BOUNDS = {name: bounds_of(name) for name in _NUMBERS} | {"max_steps": STEPS}


@dataclass(frozen=True)
class TrainSettings:
    """Everything that changes the trained numbers, besides bundle, data and plan."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_fraction: float
    weight_decay: float
    clip_norm: float
    seed: int
    max_seq_len: int
    dropout: bool
    max_steps: int | None
    optimizer: str = DEFAULT_OPTIMIZER
    proximal_mu: float = 0.0  # of a fleet's round (optimizers/proximal.py)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the optimiser steps of the whole run."""
        return min(steps_per_epoch * self.epochs, self.max_steps or 10**12)


@dataclass(frozen=True)
class RunRecord:
    """RUN/run.json: with these a resumed run continues the same run, or refuses."""

    settings: TrainSettings
    bundle: str
    train_sha256: str
    eval_sha256: str | None
    backend: str
    threads: Annotated[int, Within(1, 1024)]
    rows: dict[str, Annotated[int, Within(1, 65_536)]]
    evaluation_tokens: Count
    onnxruntime: str

    @property
    def choice(self) -> Choice:
        """Return what the run's plan decided."""
        rows = {int(length): rows for length, rows in self.rows.items()}
        variants = {int(length): str(variant) for length, variant in self.variants.items()}
        return Choice(rows, self.evaluation_tokens, variants)

    def planned(self, plan: Plan) -> RunRecord:
        """Return the record with a plan's choice."""
        rows = {str(length): rows for length, rows in plan.rows.items()}
        variants = {str(length): variant for length, variant in plan.variants.items()}
        return replace(self, rows=rows, variants=variants, evaluation_tokens=plan.evaluation_tokens)

    def refuse_changes(self, wanted: RunRecord) -> None:
        """Raise ConfigError where `wanted` would not be this run continued."""
        for name, option, message in (
            ("bundle", "BUNDLE", "the bundle differs from the one the run was started with"),
            ("train_sha256", "--train", "the training data differs from what the run was started with"),
            ("learners_sha256", "--learners", "the run was started from other learners"),
            ("eval_sha256", "--eval", "the evaluation data differs from what the run was started with"),
            ("labels", "--labels", "the run was started with other labels"),
            ("backend", "--backend", f"the run was started with {self.backend}"),
        ):
            if getattr(self, name) != getattr(wanted, name):
                raise ConfigError(message, where=option, hint=_SAME_COMMAND)
        for name, value in asdict(self.settings).items():
            asked = getattr(wanted.settings, name)
            if asked != value:
                message = f"the run was started with {_shown(value)}, not {_shown(asked)}"
                raise ConfigError(message, where=_option(name), hint=_SAME_COMMAND)

    variants: dict[str, str] = field(default_factory=dict)  # the step graph by padded length; left out: step
    labels: tuple[str, ...] = ()  # where labels took places that the bundle keeps free; else none
    new_labels: tuple[str, ...] = ()  # those of them that the learners to begin with do not know
    learners_sha256: str | None = None  # of a file the run starts from; None: the bundle's learners


def resolve_settings(bundle: Bundle, wishes: dict[str, Any]) -> TrainSettings:
    """Merge the bundle's defaults with the wishes that are not None; raises ConfigError for a value out of bounds."""
    defaults = bundle.manifest.defaults
    values: dict[str, Any] = {
        "epochs": defaults.epochs,
        "batch_size": defaults.batch_size,
        "learning_rate": defaults.learning_rate,
        "warmup_fraction": defaults.warmup_fraction,
        "weight_decay": defaults.weight_decay,
        "clip_norm": defaults.clip_norm,
        "seed": defaults.seed,
        "max_seq_len": defaults.max_seq_len,
        "dropout": defaults.dropout,
        "max_steps": None,
        "optimizer": DEFAULT_OPTIMIZER,
        "proximal_mu": 0.0,
    }
    values |= {name: value for name, value in wishes.items() if value is not None}
    for name, bounds in _BOUNDS.items():
        value = values[name]
        if value is not None and not bounds.low <= value <= bounds.high:
            raise ConfigError(f"must be from {bounds.low:g} to {bounds.high:g}, not {value:g}", where=_option(name))
    if values["max_seq_len"] > defaults.max_seq_len:
        raise ConfigError(
            f"the bundle reads at most {defaults.max_seq_len} tokens, not {values['max_seq_len']}",
            where="--max-seq-len",
            hint="export the bundle with a larger --max-seq-len",
        )
    if values["optimizer"] not in OPTIMIZERS:
        raise ConfigError(f"must be {' or '.join(OPTIMIZERS)}, not {values['optimizer']}", where="--optimizer")
    values["max_seq_len"] = values["max_seq_len"] // 8 * 8
    return TrainSettings(**values)


def store_record(path: Path, record: RunRecord) -> None:
    """Write run.json."""
    write_json(path, asdict(record))


def load_record(path: Path) -> RunRecord:
    """Read run.json; raises InputMissing or ConfigError."""
    if not path.is_file():
        raise InputMissing(
            "no run to resume: run.json is missing", where=str(path.parent), hint="start it without --resume"
        )
    try:
        record: RunRecord = read_document(path, RunRecord)
        if not record.rows or not all(LENGTH.fullmatch(length) for length in (*record.rows, *record.variants)):
            raise Damaged("it has no plan")
        return record
    except Damaged as error:
        raise ConfigError(f"run.json is damaged: {error}", where=str(path), hint="start a new run") from error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shown(value: bool | float | str | None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "dropout" if value else "no dropout"
    return "no limit" if value is None else f"{value:.12g}"
