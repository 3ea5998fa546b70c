"""The plan matrix for people: Markdown tables whose columns stand under one another in a terminal too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["bundle_matrix", "ladder_matrix"]

_NONE = "-"


def bundle_matrix(document: Mapping[str, Any]) -> str:
    """Return a row a board of one bundle's plan."""
    headings = ("board", "budget, MiB", "fits", "micro-batch", "peak, MiB", "disk, MiB", "step, GFLOP", "step, s")
    rows = [
        (
            row["profile"],
            str(row["budget_mib"]),
            "yes" if row["fits"] else f"no: needs {row['needed_mib']}",
            _micro_batch(row),
            _number(row["predicted_peak_mib"]),
            _number(row["disk_mib"]),
            _gflop(row["step_gflop"]),
            _NONE if row["step_seconds"] is None else f"{row['step_seconds']:.3f}",
        )
        for row in document["rows"]
    ]
    first = document["rows"][0]
    lines = [
        f"{document['bundle']}, {first['method']}: batches of {first['batch_size']}, up to {first['longest']} tokens, "
        f"{_optimizers(document['rows'])}",
        "",
        _table(headings, rows),
        "",
        *_frozen_blocks(first, document["data"]),
    ]
    lines += _nothing_fits(document["rows"])
    if document["times_from"] is None:
        lines.append("times       none: no row is this machine, or it was not measured")
    else:
        lines.append(f"times       predicted for this machine's row: {document['times_from']}")
    return "\n".join(lines)


def ladder_matrix(document: Mapping[str, Any]) -> str:
    """Return boards against methods, then what each method takes wherever it runs."""
    rows, methods = document["rows"], document["methods"]
    cells = {(row["profile"], row["method"]): row for row in rows}
    boards = list(dict.fromkeys(row["profile"] for row in rows))
    grid = []
    for board in boards:
        first = next(row for row in rows if row["profile"] == board)
        shape = f"{first['batch_size']} x {first['longest']}"
        own = [cells.get((board, method)) for method in methods]
        grid.append((board, str(first["budget_mib"]), shape, *(_NONE if cell is None else _cell(cell) for cell in own)))
    lines = [
        f"{document['model']}, {document['pooling']} pooling, frozen weights in {document['frozen_precision']}, "
        f"with dropout, {_optimizers(rows)}",
        "",
        "Predicted peak in MiB / examples of a micro-batch; where it does not fit, the budget that would do.",
        "",
        _table(("board", "budget, MiB", "batch x tokens", *methods), grid),
        "",
        "What a method takes: disk for bundle and run, and for 1,000 texts of that length in the activation cache;",
        "work of a step, and of a text's one pass through the frozen blocks.",
        "",
        _table(
            ("method", "batch x tokens", "trained", "disk, MiB", "cache, MiB", "step, GFLOP", "text, GFLOP"),
            list(dict.fromkeys(_of_method(row) for row in rows)),
        ),
    ]
    if not document["fits"]:
        lines += ["", *_nothing_fits(rows)]
    if document["left_out"]:
        lines += ["", *(f"{each['method']}: {each['reason']}" for each in document["left_out"])]
    return "\n".join([*lines, "", "times       none: a bundle of random weights was not timed"])


def _cell(row: Mapping[str, Any]) -> str:
    if not row["fits"]:
        return f"no: {row['needed_mib']}"
    return f"{row['predicted_peak_mib']:.0f} / {row['micro_batch']}"


def _of_method(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["method"],
        f"{row['batch_size']} x {row['longest']}",
        f"{row['trained_parameters']:,}",
        _number(row["disk_mib"]),
        _NONE if row["cache_mib_1000"] is None else f"{row['cache_mib_1000']:.1f}",
        _gflop(row["step_gflop"]),
        _NONE if row["fill_gflop"] is None else _gflop(row["fill_gflop"]),
    )


def _nothing_fits(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to do where no row fits."""
    if any(row["fits"] for row in rows):
        return []
    least = min(row["needed_mib"] for row in rows)
    return [
        f"none fits   the least of these needs {least} MiB: take shorter texts (--max-seq-len), a method that trains "
        "less (edge-far export --method head), or a board with more memory"
    ]


def _micro_batch(row: Mapping[str, Any]) -> str:
    if row["micro_batch"] is None:
        return _NONE
    return f"{row['micro_batch']}" + ("" if row["step_graph"] == "step" else f", {row['step_graph']}")


def _frozen_blocks(row: Mapping[str, Any], data: str | None) -> list[str]:
    """Return a line on what frozen blocks take once, where there are some."""
    if row["fill_gflop"] is None:
        return []
    kept = "is in the column disk" if data else f"takes {row['cache_mib_1000']:.1f} MiB for 1,000 texts"
    return [f"first       frozen blocks, each text once: {_gflop(row['fill_gflop'])} GFLOP; what is kept {kept}"]


def _optimizers(rows: Sequence[Mapping[str, Any]]) -> str:
    return " or ".join(dict.fromkeys(row["optimizer"] for row in rows))


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0f}"


def _gflop(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join((first, *rest))} |"

    rule = "|".join("-" * (width + 2) if not column else "-" * (width + 1) + ":" for column, width in enumerate(widths))
    return "\n".join([line(headings), f"|{rule}|", *map(line, rows)])
