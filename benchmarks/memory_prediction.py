"""Predicted against measured peak memory and step time: does the plan keep its word?

    python benchmarks/memory_prediction.py [--geometries tiny minilm distilbert-2] [--shapes 16x64 8/2x128] [--out FILE]
    python benchmarks/memory_prediction.py --variants ladder [--geometries minilm distilbert] [--out FILE]

Run with the workstation's environment. Every combination of geometry, variant and shape trains a few steps in a fresh
process of the device's environment; the plan is made in it at the moment when `edge-far train` makes it, the machine's
speed is measured anew for each bundle, and VmHWM is read at the end. A shape is BATCHxLENGTH or BATCH/MICROxLENGTH,
with an r behind it on the step graph that recomputes blocks. Errors are (predicted - measured) / measured: the aim is
-5 % to +10 % for peaks, and 25 % either way for times (median step, the first left out). Prints a Markdown table; --out
writes the same as JSON.

The ladder's variants are head, top-1, top-2 and far with attention heads, in int8 and fp32, with a head on the mean of
all tokens where the geometry is MiniLM's. Where blocks are frozen whole, training comes after the fill of the cache, in
the same process: a peak is that of both phases, a time that of a step from the second epoch on. The fill of a batch is
a row of its own (fill), of a process of its own, once a length.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_far.bench.cases import Method, method_named
from edge_far.bench.environments import describe_machine, python_or_exit
from edge_far.bench.run import run_task
from edge_far.bench.work.bundles import compile_random
from edge_far.bench.work.task import Measurement, Task
from edge_far.console import Console
from edge_far.storage import write_json

WARMUP, STEPS = 1, 3
LOWEST_ERROR, HIGHEST_ERROR = -0.05, 0.10
LARGEST_TIME_ERROR = 0.25
GEOMETRIES = {"far": ("tiny", "minilm", "distilbert-2"), "ladder": ("minilm", "distilbert")}
SHAPES = ("16x64", "4x128", "16/4x128", "16/4x128r")
MEAN_POOLED = ("minilm",)  # a sentence encoder


@dataclass(frozen=True)
class Shape:
    """What a process trains: micro-batches of a length, by one of the step graphs."""

    name: str
    batch: int
    micro_batch: int
    length: int
    variant: str
    phase: str = "step"


@dataclass(frozen=True)
class Variant:
    """How a bundle is compiled."""

    method: Method
    precision: str
    embeddings: str = "frozen"
    dropout: bool = False

    @property
    def name(self) -> str:
        """Return the name of a row."""
        extras = (", embeddings trained" if self.embeddings == "train" else "") + (", dropout" if self.dropout else "")
        return f"{self.method.name} {self.precision}{extras}"


FULL, FAR_10, FAR_40 = (method_named(name, 0.1) for name in ("full", "far-10", "far-40"))
VARIANTS = {
    "far": (
        Variant(FAR_10, "int8"),
        Variant(FAR_10, "fp32"),
        Variant(FAR_40, "int8"),
        Variant(FAR_10, "int8", dropout=True),
        Variant(FAR_10, "fp32", embeddings="train"),
        Variant(FULL, "fp32"),
    ),
    "ladder": tuple(
        Variant(method_named(name, 0.1), precision)
        for name in ("head", "top-1-heads", "top-2-heads", "far-10-heads")
        for precision in ("int8", "fp32")
    ),
}


def main() -> None:
    """Compile, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", choices=list(VARIANTS), default="far")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the variants, those of these names: 'head int8'")
    parser.add_argument("--geometries", nargs="+", help="default: those that the variants were chosen for")
    parser.add_argument("--shapes", nargs="+", type=_shape, default=[_shape(text) for text in SHAPES])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device-python", type=Path)
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args()
    geometries = options.geometries or GEOMETRIES[options.variants]
    variants = [each for each in VARIANTS[options.variants] if not options.only or each.name in options.only]
    python = python_or_exit("edge-far", options.device_python)
    rows: list[dict[str, Any]] = []
    console = Console()
    document = {"machine": describe_machine(), "steps": STEPS, "threads": options.threads, "rows": rows}
    expected = sum(len(_with_fills(each, options.shapes)) for each in variants)
    with console.progress(len(geometries) * expected, "predictions") as progress:
        for geometry in geometries:
            for variant in variants:
                for row in measure(geometry, variant, options.shapes, python, options.threads):
                    rows.append(row)
                    progress.update(len(rows), f"{geometry} {variant.name} {row['shape']}: {row['error']:+.1%}")
                    if options.out:
                        write_json(options.out, document)
    print(as_markdown(rows))


def measure(geometry: str, variant: Variant, shapes: list[Shape], python: Path, threads: int) -> list[dict[str, Any]]:
    """Compile one bundle and return a row for each shape that it has a step graph for, and for its fills."""
    with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # the machine's speed is measured anew
        bundle = compile_random(
            geometry,
            Path(folder, "bundle"),
            retention=variant.method.retention,
            precision=variant.precision,
            embeddings=variant.embeddings,
            dropout=variant.dropout,
            with_ort=False,
            rung=variant.method.rung,
            heads=variant.method.heads,
            pooling="mean" if variant.method.is_rung and geometry in MEAN_POOLED else "cls",
        )
        graphs = {step.name for step in bundle.manifest.portable.steps}
        chosen = [shape for shape in _with_fills(variant, shapes) if shape.variant in graphs]
        return [_row(geometry, variant, shape, bundle.root, python, threads) for shape in chosen]


def _with_fills(variant: Variant, shapes: list[Shape]) -> list[Shape]:
    """Return the shapes, and where blocks are frozen whole the fill of a batch of each length."""
    if not variant.method.has_cut:
        return shapes
    largest = {shape.length: shape for shape in sorted(shapes, key=lambda shape: shape.batch)}
    fills = [
        replace(shape, name=f"{shape.batch}x{length} fill", variant="step", phase="fill")
        for length, shape in largest.items()
    ]
    return [*shapes, *fills]


def _row(geometry: str, variant: Variant, shape: Shape, bundle: Path, python: Path, threads: int) -> dict[str, Any]:
    task = Task(
        engine="edge-far",
        model=geometry,
        bundle=str(bundle),
        retention=variant.method.retention,
        embeddings=variant.embeddings,
        attention=None,
        batch=shape.batch,
        micro_batch=shape.micro_batch,
        length=shape.length,
        threads=threads,
        steps=STEPS,
        warmup=WARMUP,
        dropout=variant.dropout,
        seed=0,
        optimizer="adamw",
        variant=shape.variant,
        phase=shape.phase,
        predict_time=True,
    )
    found = run_task(python, task)
    if not isinstance(found, Measurement):
        sys.exit(f"{geometry} {variant.name}: {found}")
    assert found.predicted_peak_mib is not None
    if found.predicted_step_seconds is None:
        sys.exit(f"{geometry} {variant.name}: the machine's speed could not be measured")
    seconds = statistics.median(found.step_seconds)
    return {
        "geometry": geometry,
        "variant": variant.name,
        "shape": shape.name,
        "predicted_mib": round(found.predicted_peak_mib, 1),
        "parts_mib": {name: round(size, 1) for name, size in (found.parts_mib or {}).items()},
        "measured_mib": round(found.peak_rss_mib, 1),
        "error": round(found.predicted_peak_mib / found.peak_rss_mib - 1, 4),
        "predicted_seconds": round(found.predicted_step_seconds, 4),
        "measured_seconds": round(seconds, 4),
        "time_error": round(found.predicted_step_seconds / seconds - 1, 4),
        "runtime": found.runtime,
    }


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table, its extremes below."""
    lines = [
        "| geometry | variant | shape | predicted, MiB | measured, MiB | error | predicted, s | measured, s | error |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        sizes = f"{row['predicted_mib']:.0f} | {row['measured_mib']:.0f} | {row['error']:+.1%}"
        times = f"{row['predicted_seconds']:.3f} | {row['measured_seconds']:.3f} | {row['time_error']:+.0%}"
        lines.append(f"| {row['geometry']} | {row['variant']} | {row['shape']} | {sizes} | {times} |")
    errors = [row["error"] for row in rows]
    late = [row["time_error"] for row in rows]
    wrong = sum(abs(error) > LARGEST_TIME_ERROR for error in late)
    outside = sum(not LOWEST_ERROR <= error <= HIGHEST_ERROR for error in errors)
    lines += [
        "",
        f"{len(rows)} combinations; peaks: error from {min(errors):+.1%} to {max(errors):+.1%}, {outside} outside "
        f"{LOWEST_ERROR:+.0%} to {HIGHEST_ERROR:+.0%}; times: error from {min(late):+.0%} to {max(late):+.0%}, {wrong} "
        f"beyond {LARGEST_TIME_ERROR:.0%}; {rows[0]['runtime']}",
    ]
    return "\n".join(lines)


def _shape(text: str) -> Shape:
    """Read BATCHxLENGTH or BATCH/MICRO_BATCHxLENGTH, with an l behind it for step-lean, an r for step-remat."""
    found = re.fullmatch(r"(\d+)(?:/(\d+))?x(\d+)([lr]?)", text)
    if not found or int(found[3]) % 8:
        raise argparse.ArgumentTypeError(f"not BATCHxLENGTH with a length divisible by 8: {text}")
    variant = {"r": "step-remat", "l": "step-lean"}.get(found[4], "step")
    return Shape(text, int(found[1]), int(found[2] or found[1]), int(found[3]), variant)


if __name__ == "__main__":
    main()
