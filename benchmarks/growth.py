"""How cost grows: step time and peak memory over tokens, batch size, retention and blocks (edge-far alone).

    python benchmarks/growth.py --out DIR [--model minilm] [--rounds 2] [--table]

Run with the workstation's environment, alone on the machine. Random weights, embeddings frozen, dropout off, AdamW
included, the whole batch as one micro-batch; a fresh process of the device's environment a row and round, three steps
after one of warm-up; every second round runs backwards, so that a drifting machine hits all rows alike. FAR_10 in int8
unless a sweep says otherwise; retention is swept in fp32 too. Each finished row is in DIR/growth.json and is not run
again, so the same command continues after an interruption. DIR/growth.png shows times and peaks, the planned ones
dashed. --table measures nothing: it prints the table of what is there and draws it.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_far.bench.environments import describe_machine, python_or_exit
from edge_far.bench.run import run_task
from edge_far.bench.work.task import Measurement, Task
from edge_far.console import Console
from edge_far.report.plot import BLUE, DOTS_PER_INCH, GRID, INK, ORANGE, STYLE
from edge_far.storage import write_atomically, write_json

WARMUP = 1
SWEEPS = {"tokens": "tokens", "batch": "examples a batch", "retention": "learners, %", "blocks": "blocks"}
# The most that a share of learners may take of full fine-tuning's time.
LARGEST_RATIO = 1.03

Row = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One measured point; `percent` is the retention, `blocks` is 0 for as many as the geometry has."""

    sweep: str
    value: int
    precision: str
    batch: int
    length: int
    percent: int = 10
    blocks: int = 0

    @property
    def bundle(self) -> tuple[int, int, str]:
        """Return what its bundle depends on."""
        return self.blocks, self.percent, self.precision

    @property
    def title(self) -> str:
        """Return the name of a row."""
        return f"{self.sweep} {self.value} {self.precision}"


def main() -> None:
    """Compile and measure what is missing, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="minilm", help="geometry, or a directory with a config.json")
    parser.add_argument("--tokens", type=int, nargs="*", default=[64, 128, 256, 512], help="at batch 4")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32], help="at 64 tokens")
    parser.add_argument(
        "--retentions", type=int, nargs="*", default=[0, 10, 20, 40, 60, 80, 90, 100], help="%%, at batch 8 x 128"
    )
    parser.add_argument("--blocks", type=int, nargs="*", default=[2, 4, 6, 8, 12], help="at batch 4 x 128")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device-python", type=Path)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    file = options.out / "growth.json"
    setup = {"model": options.model, "steps": options.steps, "warmup": WARMUP, "threads": options.threads}
    document = json.loads(file.read_bytes()) if file.is_file() else {**setup, "machine": describe_machine(), "rows": []}
    if not options.table:
        if {key: document[key] for key in setup} != setup:
            sys.exit(f"{file} was measured with other options: name another --out")
        options.out.mkdir(parents=True, exist_ok=True)
        measure(points(options), document, file, options)
    rows = summary(document["rows"])
    if not rows:
        sys.exit(f"{file}: no rows")
    draw(rows, document, options.out / "growth.png")
    print(as_markdown(rows, document))


def points(options: argparse.Namespace) -> list[Point]:
    """Return every point of the four sweeps."""
    return [
        *(Point("tokens", n, "int8", batch=4, length=n) for n in options.tokens),
        *(Point("batch", n, "int8", batch=n, length=64) for n in options.batches),
        *(Point("retention", n, p, 8, 128, percent=n) for p in ("int8", "fp32") for n in options.retentions),
        *(Point("blocks", n, "int8", batch=4, length=128, blocks=n) for n in options.blocks),
    ]


def measure(wanted: Sequence[Point], document: Row, file: Path, options: argparse.Namespace) -> None:
    """Measure what `document` lacks, sweep by sweep and precision by precision, writing each row through to `file`."""
    python = python_or_exit("edge-far", options.device_python)
    kept = {(row["sweep"], row["value"], row["precision"], row["round"]) for row in document["rows"]}
    missing = [
        (point, number)
        for point in wanted
        for number in range(options.rounds)
        if (point.sweep, point.value, point.precision, number) not in kept
    ]
    done = 0
    with Console().progress(len(missing), "growth") as progress:
        for group in dict.fromkeys((point.sweep, point.precision) for point, _ in missing):
            members = [(point, n) for point, n in missing if (point.sweep, point.precision) == group]
            with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as folder:
                bundles = {
                    key: compiled(key, options.model, Path(folder))
                    for key in dict.fromkeys(p.bundle for p, _ in members)
                }
                for number in range(options.rounds):
                    now = [point for point, n in members if n == number]
                    for point in now if number % 2 == 0 else reversed(now):
                        row = {
                            **asdict(point),
                            "round": number,
                            **measured(point, bundles[point.bundle], python, options),
                        }
                        document["rows"].append(row)
                        write_json(file, document)
                        done += 1
                        middle = statistics.median(row["step_seconds"])
                        progress.update(done, f"{point.title}: {middle:.3f} s, peak {row['peak_rss_mib']:.0f} MiB")


def compiled(key: tuple[int, int, str], model: str, folder: Path) -> Path:
    """Compile the bundle of some points; a model of another depth is a directory with its config.json."""
    from edge_far.bench.work.bundles import compile_random
    from edge_far.bench.work.models import make_config

    blocks, percent, precision = key
    if blocks:
        config = make_config(model, dropout=False)
        config.num_hidden_layers = blocks
        model = str(folder / f"model-{blocks}")
        config.save_pretrained(model)
    out = folder / f"bundle-{blocks}-{percent}-{precision}"
    return compile_random(
        model,
        out,
        retention=percent / 100,
        precision=precision,
        embeddings="frozen",
        dropout=False,
        with_ort=False,
    ).root


def measured(point: Point, bundle: Path, python: Path, options: argparse.Namespace) -> Row:
    """Train a few steps in a fresh process."""
    task = Task(
        engine="edge-far",
        model=options.model,
        bundle=str(bundle),
        retention=point.percent / 100,
        embeddings="frozen",
        attention=None,
        batch=point.batch,
        micro_batch=point.batch,
        length=point.length,
        threads=options.threads,
        steps=options.steps,
        warmup=WARMUP,
        dropout=False,
        seed=0,
        optimizer="adamw",
    )
    found = run_task(python, task)
    if not isinstance(found, Measurement):
        sys.exit(f"{point.title}: {found}")
    names = ("step_seconds", "peak_rss_mib", "predicted_peak_mib", "trained_parameters", "runtime")
    return {name: value for name, value in asdict(found).items() if name in names}


def summary(rows: Sequence[Row]) -> list[Row]:
    """Pool the rounds of each point: the median step, the highest peak."""
    pooled: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        pooled.setdefault((row["sweep"], row["precision"], row["value"]), []).append(row)
    made = []
    for (sweep, precision, value), found in sorted(
        pooled.items(), key=lambda item: (list(SWEEPS).index(item[0][0]), item[0])
    ):
        seconds = [second for row in found for second in row["step_seconds"]]
        made.append(
            {
                **found[0],
                **{"sweep": sweep, "precision": precision, "value": value},
                "seconds": statistics.median(seconds),
                "spread": max(seconds) - min(seconds),
                "peak_rss_mib": max(row["peak_rss_mib"] for row in found),
                "predicted_peak_mib": max(row["predicted_peak_mib"] for row in found),
            }
        )
    return made


def slowest_retention(rows: Sequence[Row]) -> list[str]:
    """Return a line a precision: the largest time of a smaller share of learners over that of full fine-tuning."""
    lines = []
    for precision in dict.fromkeys(row["precision"] for row in rows if row["sweep"] == "retention"):
        seconds = {
            row["value"]: row["seconds"] for row in rows if (row["sweep"], row["precision"]) == ("retention", precision)
        }
        full = seconds.pop(100, None)
        if full is None or not seconds:
            continue
        worst = max(seconds, key=lambda percent: seconds[percent])
        ratio = seconds[worst] / full
        verdict = "met" if ratio <= LARGEST_RATIO else "not met"
        lines.append(
            f"{precision}: no retention slower than full fine-tuning (<= {LARGEST_RATIO} x): {verdict}; "
            f"the slowest, {worst} %, takes {ratio:.3f} x the time of 100 %"
        )
    return lines


def as_markdown(rows: Sequence[Row], document: Row) -> str:
    """Return set-up, table and what is said of the retentions."""
    machine = document["machine"]
    lines = [
        f"{document['model']}, {document['threads']} threads, {document['steps']} steps after {document['warmup']} of "
        f"warm-up a round; {machine['cpu']}, load average before the run {machine['load_average']}, {machine['date']}, "
        f"edge-far {machine['edge_far']}, {rows[0]['runtime']}",
        "",
        "| sweep | value | precision | batch | step, s | spread, s | peak, MiB | predicted, MiB | trained |",
        "|---|---:|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = f"| {SWEEPS[row['sweep']]} | {row['value']} | {row['precision']} | {row['batch']} x {row['length']} | "
        cells += f"{row['seconds']:.3f} | {row['spread']:.3f} | {row['peak_rss_mib']:.0f} | "
        lines.append(cells + f"{row['predicted_peak_mib']:.0f} | {row['trained_parameters']:,} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in slowest_retention(rows))])


def draw(rows: Sequence[Row], document: Row, out: Path) -> None:
    """Write the picture: a panel a sweep, seconds on the left and MiB on the right."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 7.6), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(f"{document['model']}, {document['threads']} thread(s)", fontsize=12, color=INK)
        for sweep, left in zip(SWEEPS, figure.subplots(2, 2).flat, strict=True):
            found = [row for row in rows if row["sweep"] == sweep]
            if not found:
                left.set_axis_off()
                continue
            right = left.twinx()
            for precision, marker, dashes in (("int8", "o", "--"), ("fp32", "s", ":")):
                mine = [row for row in found if row["precision"] == precision]
                if not mine:
                    continue
                at = [row["value"] for row in mine]
                style = {"marker": marker, "markersize": 4, "linewidth": 1.6 if precision == "int8" else 0.9}
                left.plot(at, [row["seconds"] for row in mine], color=BLUE, label=f"step, {precision}", **style)
                peaks = [row["peak_rss_mib"] for row in mine]
                right.plot(at, peaks, color=ORANGE, label=f"peak, {precision}", **style)
                predicted = [row["predicted_peak_mib"] for row in mine]
                right.plot(at, predicted, dashes, color=ORANGE, linewidth=0.9, label=f"predicted peak, {precision}")
            left.set(title=_title(found[0]), xlabel=SWEEPS[sweep], ylabel="seconds a step")
            right.set(ylabel="MiB")
            left.set_ylim(bottom=0)
            right.set_ylim(bottom=0)
            left.grid(color=GRID)
            right.legend(handles=[*left.lines, *right.lines], loc="lower right")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    write_atomically(out, buffer.getvalue())


def _title(row: Row) -> str:
    """Return what a panel holds fixed."""
    fixed = {"tokens": f"batch {row['batch']}", "batch": f"{row['length']} tokens"}
    return fixed.get(row["sweep"], f"batch {row['batch']} x {row['length']} tokens")


if __name__ == "__main__":
    main()
