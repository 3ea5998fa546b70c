"""The sections of a profile that one training run reads: memory, compute, training, pressure, whose bundles it opens.

`export` takes its defaults from the same settings. How to add one: document.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_far.profile.schema import REQUIRED, setting
from edge_far.profile.units import IN_MIB, IN_PERCENT

__all__ = ["Compute", "Memory", "Pressure", "Security", "Training"]

_A_PATH = {"pattern": r"/[^\x00-\x1f]*", "form": "an absolute path"}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory that training may use."""

    budget_mib: int = setting(
        REQUIRED,
        "Peak resident set of the training process. Leave room for the operating system and for the "
        "application that runs next to it; edge-far enforces the budget itself.",
        minimum=64,
        example=300,
        **IN_MIB,
    )


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How the computation runs."""

    threads: int = setting(
        4,
        "Threads of one ONNX Runtime operator. As a rule the number of cores; fewer leave cores to the application.",
        unit="threads",
        minimum=1,
        maximum=256,
    )
    frozen_precision: Literal["int8", "int8-weights", "fp32-compact", "fp32"] = setting(
        "int8",
        "How the weights that never train are stored and multiplied: int8 is smallest and fastest; int8-weights "
        "stores 8 bits and multiplies in fp32; fp32-compact keeps only what the backward pass needs of them in 8 bits; "
        "fp32 is exact. Read when a bundle is exported; what trains is always fp32.",
    )


@dataclass(frozen=True, kw_only=True)
class Training:
    """The work of one optimiser step."""

    batch_size: int = setting(
        16,
        "Examples of one optimiser step. The plan splits them into micro-batches that fit the budget, so "
        "this changes the result of training and hardly its memory.",
        unit="examples",
        minimum=1,
        maximum=1024,
    )
    max_seq_len: int = setting(
        128,
        "Longer texts are cut here; shorter ones are never padded to it. Memory grows with it.",
        unit="tokens",
        minimum=8,
        maximum=4096,
    )
    optimizer: Literal["adamw", "adamw8bit", "lion", "sgd"] = setting(
        "adamw",
        "adamw keeps 8 bytes for each trained number; adamw8bit, the same with moments in 8 bits, 2; lion and sgd "
        "(with momentum) keep 4 and want another learning rate: lion a third to a tenth of AdamW's, sgd many times "
        "it. Training never changes to another one by itself.",
    )


@dataclass(frozen=True, kw_only=True)
class Pressure:
    """The state of the system's memory, besides the budget, at which training gives way."""

    min_available_mib: int = setting(
        64,
        "MemAvailable of the system must stay above this: training steps down to a smaller plan, then defers.",
        minimum=0,
        **IN_MIB,
    )
    max_memory_psi_some_avg10_percent: float | None = setting(
        20.0,
        "Share of the last 10 s in which some process waited for memory (first line of "
        "/proc/pressure/memory). Has no effect where the kernel runs without PSI, as Raspberry Pi OS does; "
        "null: not watched.",
        **IN_PERCENT,
    )


@dataclass(frozen=True, kw_only=True)
class Security:
    """Whose bundles this device opens."""

    allowed_signers: str | None = setting(
        None,
        "OpenSSH's allowed_signers file: bundles that nobody in it has signed (edge-far sign) are refused by every "
        "command that is given this profile. null: signatures are not looked at.",
        **_A_PATH,
    )
    revoked_keys: str | None = setting(
        None,
        "Keys that count no longer, whatever allowed_signers says: a revocation list of OpenSSH (ssh-keygen -k) or "
        "public keys, one a line.",
        **_A_PATH,
    )
