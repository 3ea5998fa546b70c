"""What a cycle asks before a release: the child that compares the models, and the application's health command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from edge_far.daemon.context import Context
from edge_far.daemon.gate.health import HealthResult, ask_health_command
from edge_far.errors import ConfigError
from edge_far.profile.adaptation_sections import Adaptation

__all__ = ["ask_application", "comparison_arguments"]


def comparison_arguments(context: Context, current: str, factory: str | None) -> list[str | Path]:
    """Return the command line of the child that compares the cycle's candidate with the release `current`.

    With the release `factory` it also measures on the host's samples how much was forgotten since.
    """
    files, releases = context.state.cycle, context.releases
    arguments: list[str | Path] = [
        "decide",
        "--candidate",
        files.candidate,
        "--current",
        releases.path(current),
        "--held-out",
        files.held_out,
        "--settings",
        json.dumps(_settings(context.profile.adaptation)),
        "--max-seq-len",
        str(context.bundle.manifest.defaults.max_seq_len),
        "--vocabulary",
        str(context.bundle.manifest.model.vocabulary),
        "--threads",
        str(context.profile.compute.threads),
        "--out",
        files.decision,
        "--json",
        "-q",
    ]
    if factory is not None:
        arguments += ["--base", files.base, "--factory", releases.path(factory)]
    return arguments


def ask_application(context: Context) -> HealthResult | None:
    """Return what the profile's health command says of the cycle's candidate, None where it names no command.

    Raises ConfigError (78) for a command that cannot be split into words.
    """
    asked = context.profile.adaptation
    if not asked.health_command:
        return None
    context.notifier.status("asking the health command")
    try:
        command = shlex.split(asked.health_command)
    except ValueError as error:
        raise ConfigError(f"cannot be split: {error}", where="adaptation.health_command") from error
    return ask_health_command(
        command,
        context.state.cycle.candidate,
        timeout_s=asked.health_timeout_minutes * 60,
        tick=context.notifier.ping,
    )


def _settings(asked: Adaptation) -> dict[str, Any]:
    """Return the fields of verdict.GateSettings, which this process does not import: NumPy comes with it."""
    return {
        "confidence": asked.confidence_percent / 100,
        "tolerance": asked.tolerance_percent / 100,
        "base_tolerance": asked.base_tolerance_percent / 100,
        "min_examples": asked.min_held_out_examples,
        "base_required": asked.base_required,
    }
