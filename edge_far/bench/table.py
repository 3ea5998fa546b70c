"""The result for people, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["as_markdown"]

_MEASURES = {"step": "step time", "peak": "peak memory", "bytes": "bytes moved"}
_HEADINGS = (
    "engine",
    "method",
    "precision",
    "embeddings",
    "optimiser",
    "step, s",
    "spread, s",
    "forward + backward, s",
    "optimiser, s",
    "examples/s",
    "peak, MiB",
    "predicted, MiB",
    "moved, MiB",
    "trained",
    "runtime",
)


def as_markdown(document: Mapping[str, Any]) -> str:
    """Return set-up, table, ratios and what was left out."""
    machine = document["machine"]
    setup = (
        f"{document['model']}, batch {document['batch']} x {document['length']} tokens in micro-batches of "
        f"{document['micro_batch']}, {document['threads']} threads, dropout {'on' if document['dropout'] else 'off'}; "
        f"{document['steps']} steps after {document['warmup']} of warm-up in each of {document['rounds']} rounds"
    )
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, load average before the run {machine['load_average']}, "
        f"{machine['date']}, edge-far {machine['edge_far']}"
    )
    lines = [setup, "", where, "", _line(_HEADINGS), _line(["---"] * 5 + ["---:"] * 9 + ["---"])]
    lines += [_line(_cells(row)) for row in document["rows"]]
    if document["ratios"]:
        lines += ["", _line(("ratio", "step time", "peak memory", "bytes moved")), _line(("---", *["---:"] * 3))]
        lines += _ratio_lines(document["ratios"])
    if document["left_out"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {row['row']}: {row['reason']}" for row in document["left_out"]]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    attention = f" ({row['attention']})" if row["attention"] else ""
    predicted, moved = row["predicted_peak_mib"], row["bytes_moved"]
    return [
        row["engine"] + attention,
        row["method"],
        row["precision"],
        "trained" if row["embeddings"] == "train" else row["embeddings"],
        row["optimizer"],
        f"{row['step_seconds']:.3f}",
        f"{row['step_seconds_spread']:.3f}",
        f"{row['forward_backward_seconds']:.3f}",
        f"{row['optimizer_seconds']:.3f}",
        f"{row['examples_per_second']:.1f}",
        f"{row['peak_rss_mib']:.0f}",
        "" if predicted is None else f"{predicted:.0f}",
        "" if moved is None else f"{moved / 2**20:,.0f}",
        f"{row['trained_parameters']:,}",
        row["runtime"],
    ]


def _ratio_lines(ratios: Mapping[str, float]) -> list[str]:
    pairs: dict[str, dict[str, float]] = {}
    for key, value in ratios.items():
        measure, _, pair = key.partition("_")
        pairs.setdefault(pair, {})[measure] = value
    return [
        _line([pair.replace("_over_", " / ").replace("_", " "), *(_ratio(found.get(m)) for m in _MEASURES)])
        for pair, found in pairs.items()
    ]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
