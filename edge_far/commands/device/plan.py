"""Will this bundle train inside a memory budget, and how: asked before anything runs.

Without --train the longest text the bundle allows is planned for; with it, the lengths that occur in the data.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.commands.arguments import add_columns_argument, add_setting
from edge_far.commands.common import (
    add_budget_argument,
    add_optimizer_argument,
    add_probe_argument,
    add_profile_arguments,
    budget_of,
    encode_file,
    open_checked,
    profile_for,
    step_times,
    threads_of,
)
from edge_far.console import Console

# What Python, NumPy and ONNX Runtime hold before a run, where it cannot be measured: 80 to 85 MiB in the device's
# environment on x86-64 (docs/lab/ladder.md, the parts of a budget).
RUNTIME_MIB = 85.0
EXAMPLES = """examples:
  edge-far plan bundle --profile rpi-zero2w-512
  edge-far plan bundle --train train.jsonl --budget-mib 220
  edge-far plan bundle --budget-mib 400 --optimizer adamw8bit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far plan`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory made by 'edge-far export'")
    parser.add_argument("--train", type=Path, metavar="FILE", help="plan for the lengths of this data")
    add_columns_argument(parser)
    add_setting(parser, "--batch-size", metavar="N", help="examples an optimiser step (default: the bundle's)")
    add_setting(parser, "--max-seq-len", metavar="N", help="cut texts to N tokens")
    add_optimizer_argument(parser)
    add_probe_argument(parser)
    add_profile_arguments(parser)
    add_budget_argument(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Make the plan; raises BudgetError (78) with the smallest budget where none fits."""
    from edge_far.device.board.memory import MIB, release_free_memory, resident_set, use_one_heap
    from edge_far.device.cache.hidden import cache_bytes
    from edge_far.device.engine.backends import why_not_here
    from edge_far.device.engine.options import session_options
    from edge_far.device.optimizers.registry import OPTIMIZERS, state_bytes
    from edge_far.device.planning.plan import Shapes, make_plan, shapes_of
    from edge_far.device.run.prediction import predict_fill
    from edge_far.device.run.settings import resolve_settings

    use_one_heap()
    bundle = open_checked(options)
    profile = profile_for(options, bundle)
    settings = resolve_settings(bundle, {"batch_size": options.batch_size, "max_seq_len": options.max_seq_len})
    encoded = None
    if options.train:
        encoded = encode_file(bundle, options.train, console, max_seq_len=settings.max_seq_len, columns=options.columns)
        shapes = shapes_of(encoded, settings.batch_size)
    else:
        lengths = tuple(range(8, settings.max_seq_len + 1, 8))
        shapes = Shapes(lengths, settings.batch_size)
    session_options(1)  # the runtime's library is part of what training needs
    budget = budget_of(options, profile)
    assumed = why_not_here() is not None
    excess = max(0.0, resident_set().now_mib - RUNTIME_MIB) if assumed else 0.0
    optimizer = options.optimizer or profile.training.optimizer
    times = step_times(
        options,
        bundle,
        threads_of(options, profile, console),
        console,
        budget + excess,
        dropout=settings.dropout,
        optimizer=optimizer,
    )
    prefix = bundle.manifest.portable.prefix
    cache_mib = None if prefix is None or encoded is None else cache_bytes(encoded, prefix) / MIB
    release_free_memory()
    plan = make_plan(
        bundle.manifest,
        shapes,
        budget,
        RUNTIME_MIB if assumed else resident_set().now_mib,
        optimizer=optimizer,
        seconds=times,
        cached=cache_mib is None or cache_mib <= profile.storage.cache_mib,
    )
    fill_seconds = None if times is None or prefix is None or encoded is None else predict_fill(times, encoded)
    trained = [parameter.shape for parameter in bundle.manifest.portable.parameters]
    return {
        "bundle": str(options.bundle),
        "profile": profile.name,
        "fits": True,
        "method": bundle.manifest.selection.rung,
        "reason": bundle.manifest.selection.reason or None,
        "trained_parameters": bundle.manifest.trained_parameters,
        **plan.to_json(),
        "runtime_assumed": assumed,
        "cache_mib": None if cache_mib is None else round(cache_mib, 3),
        "fill_seconds": None if fill_seconds is None else round(fill_seconds, 1),
        "optimizer_mib": {name: round(state_bytes(name, trained) / MIB, 1) for name in OPTIMIZERS},
        "times_from": None if times is None else times.calibration.source,
    }


def render(document: dict[str, Any]) -> str:
    """Return the plan as a table for people."""
    lines = [
        f"fits        {document['predicted_peak_mib']:.0f} of {document['budget_mib']:.0f} MiB ({document['profile']})",
        f"method      {document['method']}" + (f": {document['reason']}" if document["reason"] else ""),
        f"plan        batch {document['batch_size']} as {document['accumulation']} x {document['micro_batch']} "
        f"at {document['longest']} tokens",
    ]
    others = ", ".join(f"{name} {size:.1f}" for name, size in document["optimizer_mib"].items())
    notes = {"optimiser": f"   {document['optimizer']}; by kind: {others}"}
    if document["runtime_assumed"]:
        notes["runtime"] = "   a device's, as measured elsewhere: this environment cannot train by itself"
    lines += [f"{name:<12}{size:8.1f} MiB{notes.get(name, '')}" for name, size in document["parts_mib"].items()]
    lines += _frozen_phase(document)
    seconds = document["step_seconds"]
    lines += ["", f"{'tokens':>6} {'micro-batch':>12} {'step graph':>12}" + (f" {'step, s':>9}" if seconds else "")]
    for length, rows in document["rows"].items():
        line = f"{length:>6} {rows:>12} {document['variants'][length]:>12}"
        lines.append(line + (f" {seconds[length]:>9.3f}" if seconds else ""))
    if seconds:
        return "\n".join([*lines, "", f"times       predicted for this machine: {document['times_from']}"])
    return "\n".join([*lines, "", "times       none: this machine was not measured"])


def _frozen_phase(document: dict[str, Any]) -> list[str]:
    """Return a line on the phase that computes what the frozen blocks make of each text, where there is one."""
    if document.get("fill_peak_mib") is None:
        return []
    kept, seconds = document["cache_mib"], document["fill_seconds"]
    told = [f"peak {document['fill_peak_mib']:.0f} MiB"]
    told += [] if kept is None else [f"{kept:.0f} MiB of disk"]
    told += [] if seconds is None else [f"about {seconds:.0f} s"]
    return ["", f"first       frozen blocks, each text once: {', '.join(told)}"]
