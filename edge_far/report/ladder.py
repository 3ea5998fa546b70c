"""The picture of a choice: quality of each rung against the work it is for a device."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_far.report.plot import BLUE, DOTS_PER_INCH, GRID, INK, ORANGE, STYLE, drawing
from edge_far.storage import write_atomically

__all__ = ["draw_ladder"]

SIZE_INCHES = (6.4, 4.2)


def draw_ladder(choice: Mapping[str, Any], out: Path) -> None:
    """Draw one PNG of 960 x 630 pixels from the document of `edge-far choose` and write it atomically to `out`.

    Bars are one standard error of the difference to the best. Raises Unavailable (69) without matplotlib,
    StorageError (74).
    """
    matplotlib, canvas, figure_type = drawing()
    with matplotlib.rc_context(STYLE):
        figure = figure_type(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
        canvas(figure)
        axes, score = figure.subplots(), choice["score"]
        for row in choice["rows"]:
            taken = row == choice["chosen"]
            axes.errorbar(
                row["job_work"],
                row[score],
                yerr=row["below_best_error"],
                fmt="o",
                color=ORANGE if taken else BLUE,
                capsize=3,
                markersize=8 if taken else 6,
            )
            axes.annotate(
                f"{row['rung']} ({row['pooling']})\n{_costs(row)}",
                (row["job_work"], row[score]),
                xytext=(7, -22),
                textcoords="offset points",
                color=INK,
                fontsize=9,
                fontweight="bold" if taken else "normal",
            )
        axes.set(xlabel="work of a whole run, full fine-tuning = 1", ylabel=f"{choice['score_title']}, held out")
        axes.set_xscale("log")
        axes.margins(x=0.25)
        axes.grid(axis="y", color=GRID)
        axes.set_title(f"{choice['model']}: {choice['chosen']['rung']} is taken")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    write_atomically(out, buffer.getvalue())


def _costs(row: Mapping[str, Any]) -> str:
    """Return what a run of the row is: operations, memory of what trains, and the seconds on a board where known."""
    seconds = f", >= {row['board_seconds']:,.0f} s" if "board_seconds" in row else ""
    return f"{row['gflop']:,.0f} GFLOP, {row['state_mib']:,.1f} MiB{seconds}"
