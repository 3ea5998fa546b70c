"""The sections of a profile that the daemon alone reads: when a cycle may train, and what it must be worth.

How to add a setting: document.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_far.profile.schema import setting
from edge_far.profile.units import IN_CELSIUS, IN_MIB, IN_PERCENT

__all__ = ["Adaptation", "Power", "Schedule", "Storage", "Thermal"]


@dataclass(frozen=True, kw_only=True)
class Thermal:
    """The heat at which training pauses; set both limits or neither."""

    pause_above_celsius: float | None = setting(
        75.0, "Pause when the hottest thermal zone is above this; null: never pause.", **IN_CELSIUS
    )
    resume_below_celsius: float | None = setting(
        65.0, "Go on when every thermal zone is below this. Must be lower than the limit above.", **IN_CELSIUS
    )


@dataclass(frozen=True, kw_only=True)
class Power:
    """The power supply that periodic training asks for."""

    require_mains: bool = setting(
        True, "Train on mains only. A board that reports no power supply counts as being on mains."
    )
    min_battery_percent: int = setting(
        50, "Charge below which training defers, where require_mains is false.", **IN_PERCENT
    )


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When periodic training may run."""

    allowed_hours: str | None = setting(
        None,
        "Local time in which training may start, for example 22:00-06:00; outside it defers. null: any time.",
        pattern=r"(?!(.{5})-\1)([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d",
        form="two different times as HH:MM-HH:MM in quotes",
    )


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The space that checkpoints, releases and the activation cache need."""

    min_free_mib: int = setting(
        256, "Free space of the output's file system below which training does not start.", minimum=0, **IN_MIB
    )
    cache_mib: int = setting(
        512,
        "Most that the activation cache may take: what frozen blocks make of each text, computed once. What does not "
        "fit is computed again in every step; 0: nothing is kept.",
        minimum=0,
        **IN_MIB,
    )


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What one cycle of periodic training is worth."""

    min_new_examples: int = setting(
        32, "New examples that must have arrived since the last cycle.", minimum=1, maximum=1000000
    )
    max_minutes: int = setting(
        240,
        "Longest run of one cycle; at its end training leaves a checkpoint, which the next cycle continues.",
        unit="minutes",
        minimum=1,
        maximum=1440,
    )
    learning_rate_percent: float = setting(
        33.0,
        "Learning rate of a cycle, as a share of the bundle's, because a cycle starts from a trained model. On one "
        "data set 33 did in one epoch what 100 did in four (docs/lab/adaptation.md).",
        unit="percent",
        minimum=1,
        maximum=100,
    )
    epochs: int | None = setting(
        None, "Passes over the device's examples in a cycle; null: as many as the bundle says.", minimum=1, maximum=100
    )
    held_out_percent: int = setting(
        20,
        "Share of the device's examples that never train and decide whether a candidate is better. Read "
        "when the store is made; the split then stays for ever.",
        unit="percent",
        minimum=5,
        maximum=50,
    )
    retention_days: int | None = setting(
        365, "Examples older than this are deleted; null: no limit.", unit="days", minimum=1, maximum=36500
    )
    retention_examples: int | None = setting(
        100000, "More examples than this: the oldest are deleted; null: no limit.", minimum=100, maximum=10000000
    )
    retention_mib: int | None = setting(
        64, "More text than this: the oldest examples are deleted; null: no limit.", minimum=1, **IN_MIB
    )
    new_label_examples: int = setting(
        8,
        "Examples of a label that the model does not know before it takes a place that the bundle keeps free "
        "(edge-far export --reserve-labels).",
        minimum=2,
        maximum=1000000,
    )
    tolerance_percent: float = setting(
        5.0,
        "A candidate is released when its accuracy on the held-out examples is at least the current "
        "release's, and surely no more than this below it. Smaller needs more held-out examples.",
        unit="percent",
        minimum=0.1,
        maximum=50,
    )
    base_tolerance_percent: float = setting(
        5.0,
        "The same for the host's own samples, against the factory release: how much may be forgotten in all.",
        unit="percent",
        minimum=0.1,
        maximum=50,
    )
    confidence_percent: float = setting(
        95.0,
        "How sure 'surely' is: one-sided confidence of both comparisons.",
        unit="percent",
        minimum=50,
        maximum=99.9,
    )
    min_held_out_examples: int = setting(
        50, "Fewer held-out examples than this decide nothing: no release.", minimum=10, maximum=1000000
    )
    use_replay: bool = setting(
        False,
        "Train on the host's samples besides the device's examples, and measure forgetting: on samples of their own "
        "(edge-far daemon --base), or else on one half of them. All are text that lies on the device (edge-far "
        "daemon --replay).",
    )
    base_required: bool = setting(
        False, "Refuse every release as long as there are no samples to measure forgetting on."
    )
    release_precision: Literal["fp32", "fp16", "int8"] = setting(
        "fp32",
        "How a release stores its matrices: fp16 halves the file, int8 quarters it and multiplies in 8 bits. The gate "
        "judges the release as it is stored. edge-far merge --eval measures what it costs.",
    )
    health_command: str | None = setting(
        None,
        "A command of the application's own that gets the candidate's directory as its last argument and may "
        "veto it by an exit status other than 0; null: none.",
        example="/usr/local/bin/check-model --quick",
    )
    health_timeout_minutes: int = setting(
        5, "A health command that takes longer is a veto.", unit="minutes", minimum=1, maximum=60
    )
