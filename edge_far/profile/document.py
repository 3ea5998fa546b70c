"""Device profiles: what a board can spare for training, and when; one YAML file a board.

The dataclasses below are the schema: the one declaration behind validation, defaults and docs/reference/profiles.md.
Units are part of the field names. To add a setting, add a field here and paste the output of
`edge-far profiles sample` into docs/reference/profiles.md; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_far.errors import ConfigError
from edge_far.profile.schema import REQUIRED, commented_sample, parse, setting
from edge_far.profile.yaml_file import read_yaml

__all__ = [
    "Adaptation",
    "Board",
    "Compute",
    "Memory",
    "Power",
    "Pressure",
    "Profile",
    "Schedule",
    "Storage",
    "Thermal",
    "Training",
    "builtin_names",
    "builtin_path",
    "list_profiles",
    "load_profile",
    "reference_yaml",
]

MIB = {"unit": "MiB", "maximum": 1048576}
CELSIUS = {"unit": "degrees Celsius", "minimum": 30, "maximum": 120}
PERCENT = {"unit": "percent", "minimum": 0, "maximum": 100}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory that training may use."""

    budget_mib: int = setting(
        REQUIRED,
        "Peak resident set of the training process. Leave room for the operating system and for the "
        "application that runs next to it; edge-far enforces the budget itself.",
        minimum=64,
        example=300,
        **MIB,
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
class Thermal:
    """The heat at which training pauses; set both limits or neither."""

    pause_above_celsius: float | None = setting(
        75.0, "Pause when the hottest thermal zone is above this; null: never pause.", **CELSIUS
    )
    resume_below_celsius: float | None = setting(
        65.0, "Go on when every thermal zone is below this. Must be lower than the limit above.", **CELSIUS
    )


@dataclass(frozen=True, kw_only=True)
class Power:
    """The power supply that periodic training asks for."""

    require_mains: bool = setting(
        True, "Train on mains only. A board that reports no power supply counts as being on mains."
    )
    min_battery_percent: int = setting(
        50, "Charge below which training defers, where require_mains is false.", **PERCENT
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
class Pressure:
    """The state of the system's memory, besides the budget, at which training gives way."""

    min_available_mib: int = setting(
        64,
        "MemAvailable of the system must stay above this: training steps down to a smaller plan, then defers.",
        minimum=0,
        **MIB,
    )
    max_memory_psi_some_avg10_percent: float | None = setting(
        20.0,
        "Share of the last 10 s in which some process waited for memory (first line of "
        "/proc/pressure/memory). Has no effect where the kernel runs without PSI, as Raspberry Pi OS does; "
        "null: not watched.",
        **PERCENT,
    )


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The space that checkpoints and releases need."""

    min_free_mib: int = setting(
        256, "Free space of the output's file system below which training does not start.", minimum=0, **MIB
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
        64, "More text than this: the oldest examples are deleted; null: no limit.", minimum=1, **MIB
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
    health_command: str | None = setting(
        None,
        "A command of the application's own that gets the candidate's directory as its last argument and may "
        "veto it by an exit status other than 0; null: none.",
        example="/usr/local/bin/check-model --quick",
    )
    health_timeout_minutes: int = setting(
        5, "A health command that takes longer is a veto.", unit="minutes", minimum=1, maximum=60
    )


@dataclass(frozen=True, kw_only=True)
class Board:
    """Facts about the board, for people and for checks; all may be left out."""

    description: str = setting("", "What people call it.", example="Raspberry Pi Zero 2 W")
    cores: int | None = setting(
        None, "CPU cores; compute.threads may not exceed them.", minimum=1, maximum=256, example=4
    )
    core: str | None = setting(None, "The core's name as compilers and emulators spell it.", example="cortex-a53")
    architecture: Literal["aarch64", "x86_64"] | None = setting(
        None, "Machine as `uname -m` prints it; null: either.", example="aarch64"
    )
    ram_mib: int | None = setting(
        None,
        "RAM as it is sold; memory.budget_mib and pressure.min_available_mib together must be smaller.",
        minimum=128,
        example=512,
        **MIB,
    )
    dot_product: bool | None = setting(
        None, "Whether the core has the 8-bit dot-product instructions that make int8 fast.", example=False
    )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One device profile; `name` is the name of its file."""

    name: str
    memory: Memory
    compute: Compute = Compute()
    training: Training = Training()
    thermal: Thermal = Thermal()
    power: Power = Power()
    schedule: Schedule = Schedule()
    pressure: Pressure = Pressure()
    storage: Storage = Storage()
    adaptation: Adaptation = Adaptation()
    board: Board = Board()

    def as_document(self) -> dict[str, dict[str, Any]]:
        """Return every section with every default filled in; dumped as YAML it loads as the same profile."""
        return {name: dataclasses.asdict(getattr(self, name)) for name in SECTIONS}


# A section's key in the file -> its dataclass, in the order in which files are written.
SECTIONS: dict[str, type] = {
    "memory": Memory,
    "compute": Compute,
    "training": Training,
    "thermal": Thermal,
    "power": Power,
    "schedule": Schedule,
    "pressure": Pressure,
    "storage": Storage,
    "adaptation": Adaptation,
    "board": Board,
}


def load_profile(name_or_path: str | Path) -> Profile:
    """Load a built-in profile by name, or a file whose name ends in .yaml or .yml.

    Raises ConfigError with every error of the file at once, InputMissing when there is no such file.
    """
    text = str(name_or_path)
    if text in builtin_names():
        return _load_file(builtin_path(text))
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or "/" in text or path.is_file():
        return _load_file(path)
    names = builtin_names()
    near = [name for name in names if text and name.startswith(text.lower())]
    near = near or difflib.get_close_matches(text.lower(), names, n=3, cutoff=0.5)
    likely = f"did you mean {' or '.join(near)}?" if near else f"built in are {', '.join(names)}"
    raise ConfigError("is not a built-in profile", where=text or "profile", hint=f"{likely}; a file must end in .yaml")


def list_profiles() -> list[Profile]:
    """Return the built-in profiles, smallest budget first."""
    profiles = [_load_file(builtin_path(name)) for name in builtin_names()]
    return sorted(profiles, key=lambda profile: (profile.memory.budget_mib, profile.name))


def builtin_names() -> list[str]:
    """Return the names of the built-in profiles, sorted."""
    return sorted(path.stem for path in _builtin_folder().glob("*.yaml"))


def builtin_path(name: str) -> Path:
    """Return the file of a built-in profile."""
    return _builtin_folder() / f"{name}.yaml"


def reference_yaml() -> str:
    """Return the commented sample with every field; docs/reference/profiles.md holds a copy."""
    return commented_sample(SECTIONS)


def _builtin_folder() -> Path:
    """Return the package's folder of profiles; in a checkout that is a link to the folder at the top."""
    package = Path(__file__).parents[1]
    inside = package / "device_profiles"
    return inside if inside.is_dir() else package.parent / "device_profiles"


def _load_file(path: Path) -> Profile:
    document = read_yaml(path)
    sections, problems = parse(SECTIONS, document)
    problems += _contradictions(sections)
    if problems:
        raise ConfigError(_joined(problems), where=str(path))
    return Profile(name=path.stem, **sections)


def _joined(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n".join([f"{len(problems)} errors", *(f"  {problem}" for problem in problems)])


def _contradictions(sections: dict[str, Any]) -> list[str]:
    """Check what no single field can say, among the sections that are valid in themselves."""
    problems = []
    thermal: Thermal | None = sections.get("thermal")
    if thermal:
        pause, resume = thermal.pause_above_celsius, thermal.resume_below_celsius
        if (pause is None) != (resume is None):
            problems.append("At 'thermal': set both limits, or both to null")
        elif pause is not None and resume is not None and resume >= pause:
            problems.append(
                f"At 'thermal.resume_below_celsius': must be below pause_above_celsius ({pause:g}), not {resume:g}"
            )
    board: Board | None = sections.get("board")
    memory: Memory | None = sections.get("memory")
    pressure: Pressure | None = sections.get("pressure")
    compute: Compute | None = sections.get("compute")
    if board and board.ram_mib is not None and memory and pressure:
        room = board.ram_mib - pressure.min_available_mib
        if memory.budget_mib >= room:
            problems.append(
                f"At 'memory.budget_mib': must be below {room}, which is board.ram_mib less "
                f"pressure.min_available_mib, not {memory.budget_mib}"
            )
    if board and board.cores is not None and compute and compute.threads > board.cores:
        problems.append(f"At 'compute.threads': must be at most board.cores ({board.cores}), not {compute.threads}")
    return problems
