"""Device profiles: what a board can spare for training, and when; one YAML file a board.

Each section is a dataclass: the one declaration behind validation, defaults and docs/reference/profiles.md. The
sections that a training run reads are in run_sections.py, those that the daemon alone reads in
adaptation_sections.py, the board's below. Units are part of the field names. To add a setting, add a field to its
section and paste the output of `edge-far profiles sample` into docs/reference/profiles.md; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edge_far.errors import ConfigError
from edge_far.profile.adaptation_sections import Adaptation, Power, Schedule, Storage, Thermal
from edge_far.profile.run_sections import Compute, Memory, Pressure, Security, Training
from edge_far.profile.schema import commented_sample, parse, setting
from edge_far.profile.units import IN_MIB
from edge_far.profile.yaml_file import read_yaml
from edge_far.quoting import quoted

__all__ = [
    "SECTIONS",
    "Board",
    "Profile",
    "built_in",
    "builtin_names",
    "builtin_path",
    "list_profiles",
    "load_profile",
    "reference_yaml",
]


@dataclass(frozen=True, kw_only=True)
class Board:
    """Facts about the board, for people and for checks; all may be left out."""

    description: str = setting("", "What people call it.", example="Raspberry Pi Zero 2 W")
    models: str = setting(
        "",
        "What the board calls itself (/proc/device-tree/model), with * for any letters, several parted by ';'. By this "
        "and by its RAM `edge-far profiles detect` knows it; left empty, no board is taken for this one.",
        example="Raspberry Pi Zero 2 *",
    )
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
        **IN_MIB,
    )
    dot_product: bool | None = setting(
        None, "Whether the core has the 8-bit dot-product instructions that make int8 fast.", example=False
    )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One device profile; `name` is the name of its file."""

    name: str
    memory: Memory
    compute: Compute = field(default_factory=Compute)
    training: Training = field(default_factory=Training)
    thermal: Thermal = field(default_factory=Thermal)
    power: Power = field(default_factory=Power)
    schedule: Schedule = field(default_factory=Schedule)
    pressure: Pressure = field(default_factory=Pressure)
    storage: Storage = field(default_factory=Storage)
    adaptation: Adaptation = field(default_factory=Adaptation)
    security: Security = field(default_factory=Security)
    board: Board = field(default_factory=Board)

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
    "security": Security,
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
    if path.suffix in (".yaml", ".yml") or "/" in text or os.path.isfile(path):  # noqa: PTH113 (too long a name is none)
        return _load_file(path)
    names = builtin_names()
    near = [name for name in names if text and name.startswith(text.lower())]
    near = near or difflib.get_close_matches(text.lower(), names, n=3, cutoff=0.5)
    likely = f"did you mean {' or '.join(near)}?" if near else f"built in are {', '.join(names)}"
    raise ConfigError("is not a built-in profile", where=text or "profile", hint=f"{likely}; a file must end in .yaml")


def built_in(name: str) -> str:
    """Return the name that a bundle carries of its profile; raises ConfigError where it is none of the built-in ones.

    A file that the workstation read is not on the device, and a bundle must not choose a file there.
    """
    if name not in builtin_names():
        raise ConfigError(
            f"the bundle's profile {quoted(name)} is not built in here",
            where="--profile",
            hint="name a built-in profile or a file",
        )
    return name


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
        if len(problems) == 1:
            raise ConfigError(problems[0], where=str(path))
        raise ConfigError(f"{len(problems)} errors", where=str(path), details=problems)
    return Profile(name=path.stem, **sections)


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
    security: Security | None = sections.get("security")
    if security and security.revoked_keys is not None and security.allowed_signers is None:
        problems.append(
            "At 'security.revoked_keys': has no effect without security.allowed_signers: set both, or neither"
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
