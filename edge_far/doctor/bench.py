"""How quick this machine is, as a block of text for a report: products, memory, a bundle's kernels, heat afterwards.

Every measurement runs in a process of its own (device/planning/); this one only asks and tells.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_far import __version__
from edge_far.console import Console
from edge_far.device.board.cpu import cpu_share
from edge_far.device.board.memory import available_mib
from edge_far.doctor.finding import Finding, Subject
from edge_far.doctor.heat_and_power import examine_heat_and_power
from edge_far.quoting import harmless, shown

if TYPE_CHECKING:
    from edge_far.device.planning.machine_speed import Calibration

__all__ = ["bench", "report"]

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-training", "numpy")
ROOM_MIB = 1024.0  # where /proc/meminfo does not tell
HEATED = frozenset({"heat", "throttling", "power"})
# A kernel's operator (its name up to the bracket) -> what people call it.
KINDS = {"Gemm": "float32", "DynamicQuantizeMatMul": "int8"}


def bench(
    subject: Subject, seconds: float, bundle: Path | None, console: Console, keep: Path | None = None
) -> dict[str, Any]:
    """Measure for about `seconds`, and with a bundle its own operators too (10 s; the plan then needs not to).

    That measurement is written to the file `keep`, for a plan on another machine. Returns the figures of
    basic_speed.py, or the reason why there are none, and the findings that heat changes.
    """
    calibration = found = None
    wanted = cpu_share().most_threads if subject.match is None else subject.match.profile.compute.threads
    threads = cpu_share().threads(wanted)
    room = available_mib() or ROOM_MIB
    try:
        from edge_far.device.planning.machine_speed import calibrate, measure_apart, write_calibration
    except ImportError as error:  # no NumPy: the findings say so, and are told
        reason = str(error)
    else:
        opened = None
        if bundle is not None:
            from edge_far.bundles.bundle import open_bundle

            opened = open_bundle(bundle)  # before the seconds are spent
        console.info(f"measuring products and memory, at most {seconds:.0f} s")
        found, reason = measure_apart("edge_far.device.planning.basic_speed", threads, room, seconds)
        if opened is not None and found is not None:
            calibration = calibrate(opened, threads, console, room)
            if keep is not None and calibration is not None:
                write_calibration(keep, calibration, opened.manifest)
                console.info(f"the plan's times are written to {shown(str(keep))}")
    if keep is not None and calibration is None:
        console.warn(f"nothing was measured for the plan, and {shown(str(keep))} is not written")
    return {
        "threads": threads,
        "basics": found,
        "reason": reason or None,
        "calibration": None if calibration is None else _calibrated(calibration),
        "after": [each.as_document() for each in examine_heat_and_power(subject) if each.name in HEATED],
    }


def report(findings: Sequence[Finding], measured: Mapping[str, Any], board: str) -> str:
    """Return the block to paste; of the findings those that are not ok. It names no user, host or path of a home."""
    system = f"Python {platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}"
    lines = [
        f"edge-far     {__version__}; {', '.join(_versions())}; {system}",
        f"board        {board}",
        *(f"{each.verdict:<12} {each.name}: {each.read}" for each in findings if each.verdict != "ok"),
        *_figures(measured),
        *(f"after        {each['name']}: {each['read']}" for each in measured["after"]),
    ]
    text = "\n".join(["```", *lines, "```"])
    return harmless(text.replace(str(Path.home()), "~") if Path.home() != Path("/") else text)


def _figures(measured: Mapping[str, Any]) -> list[str]:
    basics = measured["basics"]
    if basics is None:
        return [f"speed        none: {measured['reason']}"]
    threads = f"{measured['threads']} thread{'s' * (measured['threads'] > 1)}"
    lines = [
        f"product      {each['kind']:<8} {each['rows']} x {each['inner']} x {each['columns']}: "
        f"{each['gflop_s']:.1f} GFLOP/s ({threads}, median of {each['runs']})"
        for each in basics["products"]
    ]
    lines.append(f"memory       copy {basics['copy_gb_s']:.1f} GB/s (1 thread, {basics['copy_mib']:.0f} MiB)")
    calibration = measured["calibration"]
    if calibration is not None:
        best = ", ".join(f"{kind} {speed:.1f} GFLOP/s" for kind, speed in calibration["best_gflop_s"].items())
        lines.append(f"bundle       {calibration['kernels']} kernels measured for the plan; best product: {best}")
    return lines


def _calibrated(calibration: Calibration) -> dict[str, Any]:
    """Return what people ask of a calibration: how many kernels, and the quickest product of each kind."""
    best: dict[str, float] = {}
    for kernel, points in calibration.kernels.items():
        kind = KINDS.get(kernel.partition("[")[0].partition("(")[0])
        if kind is not None:
            best[kind] = max(best.get(kind, 0.0), *(work / seconds / 1e9 for _, work, seconds in points))
    return {"kernels": len(calibration.kernels), "best_gflop_s": {kind: round(best[kind], 2) for kind in sorted(best)}}


def _versions() -> list[str]:
    told = []
    for package in PACKAGES:
        try:
            told.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return told
