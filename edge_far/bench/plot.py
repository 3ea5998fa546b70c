"""The picture of a table: step time and peak memory as bars, one pair a row (workstation: matplotlib)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_far.errors import Unavailable
from edge_far.process.packages import install_line
from edge_far.report.plot import BLUE, DOTS_PER_INCH, GRID, INK, ORANGE, STYLE
from edge_far.storage import write_atomically

__all__ = ["draw_bench"]

_PALE_BLUE = "#90cdf4"


def draw_bench(document: Mapping[str, Any], out: Path) -> None:
    """Write a PNG atomically; raises Unavailable (69) without matplotlib, StorageError (74)."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Unavailable("drawing needs matplotlib", hint=install_line("host")) from error
    rows = document["rows"]
    names = [_name(row) for row in rows]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 1.6 + 0.34 * len(rows)), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True)
        title = f"{document['model']}, batch {document['batch']} x {document['length']} tokens"
        figure.suptitle(f"{title}, {document['threads']} thread(s)", fontsize=12, color=INK)
        computed = [row["forward_backward_seconds"] for row in rows]
        left.barh(names, computed, color=BLUE, label="forward and backward")
        left.barh(names, [row["optimizer_seconds"] for row in rows], left=computed, color=_PALE_BLUE, label="optimiser")
        left.set(title="Step time", xlabel="seconds")
        left.legend(loc="best")
        bars = right.barh(names, [row["peak_rss_mib"] for row in rows], color=ORANGE)
        right.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
        right.set(title="Peak resident set", xlabel="MiB")
        right.margins(x=0.12)
        left.invert_yaxis()  # both: they share it
        for axes in (left, right):
            axes.grid(axis="x", color=GRID)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    write_atomically(out, buffer.getvalue())


def _name(row: Mapping[str, Any]) -> str:
    trained = ", embeddings trained" if row["embeddings"] == "train" else ""
    fill = ", fill" if row["phase"] == "fill" else ""
    return f"{row['engine']} {row['method']} {row['attention'] or row['precision']}{trained}{fill}"
