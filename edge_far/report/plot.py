"""The picture of a run: loss and the headline figure over steps, resident memory against the budget over time.

Knows matplotlib (imported only when a picture is drawn) and the points of a RunLog; refuses to know the log's
format.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_far.errors import Unavailable
from edge_far.process.packages import install_line
from edge_far.report.runlog import RunLog
from edge_far.storage import write_atomically
from edge_far.tasks.figures import FIGURES

__all__ = ["draw_run", "drawing", "smoothed", "time_unit"]

BLUE, ORANGE, RED, GREEN, INK, GRID = "#2b6cb0", "#c05621", "#c53030", "#2f855a", "#2d3748", "#e2e8f0"
SIZE_INCHES = (10.0, 4.2)
DOTS_PER_INCH = 150
STYLE = {
    "font.size": 10,
    "axes.edgecolor": "#a0aec0",
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def drawing() -> tuple[Any, Any, Any]:
    """Return matplotlib, a canvas and a figure's type; raises Unavailable (69) where it is not installed."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps its cache is no news for a user
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Unavailable(
            "drawing needs matplotlib, which is not installed here",
            hint=f"run this on the workstation: {install_line('host')}",
        ) from error
    return matplotlib, FigureCanvasAgg, Figure


def draw_run(log: RunLog, out: Path, *, title: str) -> None:
    """Draw one PNG of 1500 x 630 pixels and write it atomically to `out`.

    Raises Unavailable (69) without matplotlib, StorageError (74).
    """
    matplotlib, canvas, figure_type = drawing()
    with matplotlib.rc_context(STYLE):
        figure = figure_type(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
        canvas(figure)
        left, right = figure.subplots(1, 2)
        figure.suptitle(title, fontsize=12, color=INK)
        _draw_loss(left, log)
        _draw_memory(right, log)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    write_atomically(out, buffer.getvalue())


def smoothed(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Return the exponential moving average, corrected for its start (as Adam corrects its moments)."""
    result, average, weight = [], 0.0, 0.0
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        result.append(average / weight)
    return result


def _draw_loss(axes: Any, log: RunLog) -> None:
    steps = [point.step for point in log.steps]
    losses = [point.loss for point in log.steps]
    few = "o" if len(steps) < 3 else None
    axes.set_title(f"Loss and {FIGURES[log.evals[-1].figure].title}" if log.evals else "Loss")
    axes.plot(steps, losses, color=BLUE, alpha=0.3, linewidth=0.9, marker=few, label="loss, each step")
    axes.plot(steps, smoothed(losses), color=BLUE, linewidth=2, label="loss, smoothed")
    axes.set(xlabel="optimiser step", ylabel="training loss")
    axes.set_ylim(bottom=0)
    axes.grid(color=GRID)
    for number, step in enumerate(log.resumes):
        label = "resumed" if number == 0 else None
        axes.axvline(step, color="#a0aec0", linestyle=":", linewidth=1.2, label=label)
    handles, labels = axes.get_legend_handles_labels()
    if log.evals:
        marks, last = axes.twinx(), log.evals[-1]
        figure = FIGURES[last.figure]
        percent = figure.format.endswith("%")
        values = [100 * point.value if percent else point.value for point in log.evals]
        (line,) = marks.plot(
            [point.step for point in log.evals], values, "o-", color=GREEN, linewidth=1.2, markersize=5
        )
        marks.set_ylim(0 if percent else min(0.0, *values), 109 if percent else 1.09)
        if percent:
            marks.set_yticks(range(0, 101, 20))
        marks.set_ylabel(f"eval {figure.title}{', %' if percent else ''}", color=GREEN)
        marks.tick_params(axis="y", colors=GREEN)
        marks.annotate(
            f"{values[-1]:.1f} %" if percent else figure.shown(values[-1]),
            (last.step, values[-1]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="right",
            color=GREEN,
            weight="bold",
        )
        handles, labels = [*handles, line], [*labels, f"eval {figure.title}"]
    axes.legend(handles, labels, loc="center right")


def _draw_memory(axes: Any, log: RunLog) -> None:
    axes.set_title("Resident memory of the training process")
    unit, divisor = time_unit(log)
    axes.set(xlabel=f"time, {unit}", ylabel="MiB")
    axes.grid(color=GRID)
    axes.spines["right"].set_visible(False)
    if log.memory:
        times = [time_s / divisor for time_s, _ in log.memory]
        sizes = [resident for _, resident in log.memory]
        axes.fill_between(times, sizes, color=ORANGE, alpha=0.15, linewidth=0)
        axes.plot(times, sizes, color=ORANGE, linewidth=1.8, marker="o" if len(times) < 3 else None)
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
    peak = log.peak_rss_mib
    top = max(value for value in (log.budget_mib, peak, 1.0) if value is not None)
    axes.set_ylim(0, top * 1.15)
    if log.budget_mib is not None:
        axes.axhline(log.budget_mib, color=RED, linestyle="--", linewidth=1.6)
        _label(axes, log.budget_mib, f"budget {log.budget_mib:.0f} MiB", RED, above=True)
    if peak is not None:
        axes.axhline(peak, color=ORANGE, linestyle=":", linewidth=1.2)
        over = log.budget_mib is not None and peak > log.budget_mib
        share = f" ({peak / log.budget_mib:.0%} of the budget)" if log.budget_mib else ""
        near = log.budget_mib is None or over or peak < 0.9 * log.budget_mib
        _label(axes, peak, f"peak {peak:.0f} MiB{share}", ORANGE, above=near)


def _label(axes: Any, height: float, text: str, color: str, *, above: bool) -> None:
    axes.annotate(
        text,
        (0.99, height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4 if above else -4),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        color=color,
        fontsize=9,
        weight="bold",
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
    )


def time_unit(log: RunLog) -> tuple[str, float]:
    """Return the unit of the time axis and its seconds: minutes from two minutes on, hours from three."""
    longest = log.steps[-1].time_s
    if longest >= 3 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if longest >= 120 else ("seconds", 1.0)
