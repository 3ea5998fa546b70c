"""Will this bundle train inside a memory budget, and how: asked before anything runs.

Without --train the longest text the bundle allows is planned for; with it, the lengths that occur in the data.

Times are those of this machine, or with --calibration of the board on which 'edge-far doctor' wrote that file.

--profile all asks for every board at once. Without a bundle, --model plans each method of the ladder for a geometry:
for that, bundles of random weights are compiled, on the workstation, for minutes; what they say is kept.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_far.bench.cases import method_of
from edge_far.bench.geometry_manifests import LADDER
from edge_far.bench.work.geometries import GEOMETRIES
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
from edge_far.commands.profile_choice import of_this_board
from edge_far.console import Console
from edge_far.errors import ConfigError, Unavailable, UsageError
from edge_far.profile.document import list_profiles, load_profile
from edge_far.quoting import shown
from edge_far.texts.reading.columns import Columns

if TYPE_CHECKING:
    from edge_far.bundles.manifest import Manifest
    from edge_far.device.planning.step_times import StepTimes

ALL = "all"
EXAMPLES = """examples:
  edge-far plan bundle --profile rpi-zero2w-512
  edge-far plan bundle --train train.jsonl --budget-mib 220
  edge-far plan bundle --budget-mib 400 --optimizer adamw8bit
  edge-far plan bundle --profile rpi4-2gb --calibration pi4.json    times of the board where doctor wrote it
  edge-far plan bundle --profile all                     every board
  edge-far plan --model model-directory --profile all    every board and every method, before anything is exported
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far plan`."""
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="directory made by 'edge-far export'")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help=f"instead of a bundle: a directory with a config.json, or {', '.join(GEOMETRIES)}",
    )
    parser.add_argument(
        "--methods",
        type=lambda words: tuple(words.split(",")),
        metavar="METHOD,...",
        help=f"with --model: of the ladder (default: {','.join(LADDER)})",
    )
    parser.add_argument("--pooling", choices=("cls", "mean"), help="with --model: what the head reads (default: cls)")
    parser.add_argument("--train", type=Path, metavar="FILE", help="plan for the lengths of this data")
    add_columns_argument(parser)
    add_setting(parser, "--batch-size", metavar="N", help="examples an optimiser step (default: the bundle's)")
    add_setting(parser, "--max-seq-len", metavar="N", help="cut texts to N tokens")
    add_optimizer_argument(parser)
    times = parser.add_mutually_exclusive_group()
    add_probe_argument(times)
    times.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="predict the times of another machine: 'edge-far doctor --bench --bundle BUNDLE --keep-calibration FILE'",
    )
    add_profile_arguments(parser)
    add_budget_argument(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Make the plan; raises BudgetError (78) with the smallest budget where none fits.

    With `rows` the document is a matrix, which says of each row whether it fits.
    """
    _check(options)
    if options.model is not None:
        return _plan_ladder(options, console)
    return _plan_boards(options, console) if options.profile == ALL else _plan_bundle(options, console)


def _plan_bundle(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from edge_far.device.board.memory import MIB, release_free_memory, resident_set, use_one_heap
    from edge_far.device.cache.hidden import cache_bytes
    from edge_far.device.engine.backends import why_not_here
    from edge_far.device.engine.options import session_options
    from edge_far.device.optimizers.registry import OPTIMIZERS, state_bytes
    from edge_far.device.planning.matrix import every_length
    from edge_far.device.planning.parts import RUNTIME_MIB
    from edge_far.device.planning.plan import make_plan, shapes_of
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
        shapes = every_length(settings.max_seq_len, settings.batch_size)
    session_options(1)  # the runtime's library is part of what training needs
    budget = budget_of(options, profile)
    assumed = why_not_here() is not None
    excess = max(0.0, resident_set().now_mib - RUNTIME_MIB) if assumed else 0.0
    optimizer = options.optimizer or profile.training.optimizer
    if options.calibration is None:
        threads = threads_of(options, profile, console)
        room = budget + excess
        times = step_times(options, bundle, threads, console, room, dropout=settings.dropout, optimizer=optimizer)
    else:
        times = _times_elsewhere(options, bundle.manifest, dropout=settings.dropout, optimizer=optimizer)
        threads = times.calibration.threads
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
        threads=threads,
    )
    fill_seconds = None
    if times is not None and prefix is not None and encoded is not None:
        fill_seconds = predict_fill(times, prefix, plan.fill, encoded)
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
        "calibration": None if options.calibration is None else str(options.calibration),
    }


def _times_elsewhere(options: argparse.Namespace, manifest: Manifest, *, dropout: bool, optimizer: str) -> StepTimes:
    """Return the cost model of the machine whose calibration is named; raises UsageError for other --threads."""
    from edge_far.device.planning.machine_speed import read_calibration
    from edge_far.device.planning.step_times import StepTimes

    calibration = read_calibration(options.calibration, manifest)
    if options.threads not in (None, calibration.threads):
        measured = f"{options.calibration} was measured with {calibration.threads}"
        raise UsageError(measured, where="--threads", hint="leave it out, or measure with that many on the board")
    return StepTimes(manifest, calibration, dropout=dropout, optimizer=optimizer)


def _check(options: argparse.Namespace) -> None:
    """Refuse what contradicts itself."""
    if (options.bundle is None) == (options.model is None):
        hint = "edge-far plan BUNDLE, or edge-far plan --model MODEL"
        raise UsageError("name a bundle or a model, and not both", where="edge-far plan", hint=hint)
    if options.model is None and (options.methods or options.pooling):
        where = "--methods" if options.methods else "--pooling"
        raise UsageError("a bundle has its own", where=where, hint="leave it out, or name --model instead of a bundle")
    if options.model is not None and options.train is not None:
        raise UsageError("texts need a bundle's tokenizer", where="--train", hint="leave it out: --max-seq-len says it")
    if options.columns != Columns() and options.train is None:
        raise UsageError(
            "names the columns of a file, and none is given", where="--columns", hint="name it: --train FILE"
        )
    if options.budget_mib is not None and (options.profile == ALL or options.model is not None):
        raise UsageError("each board has its own budget", where="--budget-mib", hint="name one --profile and a bundle")
    if options.calibration is not None and (options.profile == ALL or options.model is not None):
        hint = "name one --profile and the bundle that was measured"
        raise UsageError("it is of one board and one bundle", where="--calibration", hint=hint)


def _plan_boards(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return a row for every built-in profile."""
    from edge_far.device.planning.matrix import Wish, every_length, plan_row
    from edge_far.device.planning.plan import shapes_of
    from edge_far.device.run.settings import resolve_settings

    bundle = open_checked(argparse.Namespace(bundle=options.bundle, profile=None))
    manifest = bundle.manifest
    settings = resolve_settings(bundle, {"batch_size": options.batch_size, "max_seq_len": options.max_seq_len})
    shapes, texts = every_length(settings.max_seq_len, settings.batch_size), None
    if options.train:
        texts = encode_file(bundle, options.train, console, max_seq_len=settings.max_seq_len, columns=options.columns)
        shapes = shapes_of(texts, settings.batch_size)
    rows, times_from = [], None
    for profile in list_profiles():
        optimizer, times = options.optimizer or profile.training.optimizer, None
        if profile.name == _profile_here():
            threads, budget = threads_of(options, profile, console), profile.memory.budget_mib
            dropout = settings.dropout
            times = step_times(options, bundle, threads, console, budget, dropout=dropout, optimizer=optimizer)
            times_from = None if times is None else times.calibration.source
        rows.append(
            plan_row(manifest, method_of(manifest.selection).name, profile, Wish(shapes, optimizer, texts), times)
        )
    return {
        "bundle": str(options.bundle),
        "model": None,
        "profile": ALL,
        "fits": any(row.fits for row in rows),
        "methods": [rows[0].method],
        "pooling": manifest.model.pooling,
        "frozen_precision": manifest.portable.frozen_precision,
        "data": None if options.train is None else str(options.train),
        "rows": [row.to_json() for row in rows],
        "left_out": [],
        "times_from": times_from,
    }


def _plan_ladder(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return a row for every method on every board, or on the one that is named."""
    from edge_far.bench.geometry_manifests import PRECISION, manifests_of
    from edge_far.device.planning.matrix import Wish, every_length, plan_row

    profiles = list_profiles() if options.profile in (None, ALL) else [load_profile(options.profile)]
    methods, pooling = options.methods or LADDER, options.pooling or "cls"
    found = manifests_of(options.model, methods, pooling, console)
    if not found.manifests:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.left_out.items())
        hint = f"name others of {','.join(LADDER)} with --methods"
        raise Unavailable(f"no method can be planned: {reasons}", where="--model", hint=hint)
    rows = []
    for profile in profiles:
        longest = (options.max_seq_len or profile.training.max_seq_len) // 8 * 8
        shapes = every_length(longest, options.batch_size or profile.training.batch_size)
        wish = Wish(shapes, options.optimizer or profile.training.optimizer)
        for name, manifest in found.manifests.items():
            if longest > (most := manifest.defaults.max_seq_len):
                raise ConfigError(f"the model reads at most {most} tokens, not {longest}", where="--max-seq-len")
            rows.append(plan_row(manifest, name, profile, wish))
    return {
        "bundle": None,
        "model": options.model,
        "profile": options.profile or ALL,
        "fits": any(row.fits for row in rows),
        "methods": list(found.manifests),
        "pooling": pooling,
        "frozen_precision": PRECISION,
        "data": None,
        "rows": [row.to_json() for row in rows],
        "left_out": [{"method": name, "reason": reason} for name, reason in found.left_out.items()],
        "times_from": None,
    }


def _profile_here() -> str | None:
    """Return the built-in profile of this machine; None where it is none that is recognised."""
    return of_this_board() or ("workstation" if platform.machine() == "x86_64" else None)


def render(document: dict[str, Any]) -> str:
    """Return the plan as a table for people."""
    if "rows" in document and "left_out" in document:
        from edge_far.report.matrix_text import bundle_matrix, ladder_matrix

        return ladder_matrix(document) if document["bundle"] is None else bundle_matrix(document)
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
        where = document["calibration"]
        machine = "this machine" if where is None else f"another machine ({shown(where)})"
        lines += ["", f"times       predicted for {machine}: {document['times_from']}"]
        chosen = "            they choose the micro-batch, and so the peak; of a board: --calibration FILE"
        return "\n".join(lines if where is not None else [*lines, chosen])
    return "\n".join([*lines, "", "times       none: this machine was not measured"])


def _frozen_phase(document: dict[str, Any]) -> list[str]:
    """Return a line on the phase that computes what the frozen blocks make of each text, where there is one."""
    if document.get("fill_peak_mib") is None:
        return []
    kept, seconds = document["cache_mib"], document["fill_seconds"]
    told = [f"peak {document['fill_peak_mib']:.0f} MiB"]
    told += [] if kept is None else [f"{kept:.0f} MiB of disk"]
    told += [] if seconds is None else [f"about {seconds:.0f} s"]
    threads = document["fill"]["threads"]
    told += [f"{threads} runs side by side"] if threads > 1 else []
    return ["", f"first       frozen blocks, each text once: {', '.join(told)}"]
