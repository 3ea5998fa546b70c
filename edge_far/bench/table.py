"""The result for people, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["as_markdown"]

_MEASURES = {"step": "step time", "peak": "peak memory", "flops": "FLOPs", "bytes": "bytes moved"}
_UNKNOWN = "-"
_HEADINGS = (
    "engine",
    "method",
    "precision",
    "embeddings",
    "optimiser",
    "step, s",
    "spread, s",
    "GFLOP",
    "moved, MiB",
    "forward + backward, s",
    "optimiser, s",
    "examples/s",
    "peak, MiB",
    "predicted, MiB",
    "trained",
    "runtime",
)


_FROZEN_BLOCKS = (
    "Where whole blocks are frozen, a step is one of the second epoch or later: what they make of a text comes from "
    "the activation cache. The row *fill* is the first epoch's price besides: a batch of texts through these blocks."
)


def as_markdown(document: Mapping[str, Any]) -> str:
    """Return set-up, table, ratios, what may be said of them elsewhere, and what was left out."""
    machine = document["machine"]
    setup = (
        f"{document['model']}, batch {document['batch']} x {document['length']} tokens in micro-batches of "
        f"{document['micro_batch']}, {document['threads']} threads, dropout {'on' if document['dropout'] else 'off'}, "
        f"{document['pooling']} pooling; "
        f"{document['steps']} steps after {document['warmup']} of warm-up in each of {document['rounds']} rounds"
    )
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, load average before the run {machine['load_average']}, "
        f"{machine['date']}, edge-far {machine['edge_far']}"
    )
    lines = [setup, "", where, "", _line(_HEADINGS), _line(["---"] * 5 + ["---:"] * 10 + ["---"])]
    lines += [_line(_cells(row)) for row in document["rows"]]
    if document["ratios"]:
        lines += ["", _line(("ratio", *_MEASURES.values())), _line(("---", *["---:"] * len(_MEASURES)))]
        lines += _ratio_lines(document["ratios"])
    lines += ["", _what_holds(machine["cpu"])]
    if any(row["rung"] != "far" for row in document["rows"]):
        lines += ["", _FROZEN_BLOCKS]
    if document["left_out"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {row['row']}: {row['reason']}" for row in document["left_out"]]
    return "\n".join(lines)


def _what_holds(cpu: str) -> str:
    return (
        f"Ratios of step time and of peak memory are this machine's ({cpu}) and its libraries', and differ on others; "
        "those of FLOPs (products and attentions, whatever their precision) and of bytes moved are counts, the same on "
        "every machine."
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    attention = f" ({row['attention']})" if row["attention"] else ""
    predicted, flops, moved = row["predicted_peak_mib"], row["flops"], row["bytes_moved"]
    return [
        row["engine"] + attention,
        row["method"] + (", fill" if row["phase"] == "fill" else ""),
        row["precision"],
        "trained" if row["embeddings"] == "train" else row["embeddings"],
        row["optimizer"],
        f"{row['step_seconds']:.3f}",
        f"{row['step_seconds_spread']:.3f}",
        _UNKNOWN if flops is None else f"{flops / 1e9:,.2f}",
        _UNKNOWN if moved is None else f"{moved / 2**20:,.0f}",
        f"{row['forward_backward_seconds']:.3f}",
        f"{row['optimizer_seconds']:.3f}",
        f"{row['examples_per_second']:.1f}",
        f"{row['peak_rss_mib']:.0f}",
        "" if predicted is None else f"{predicted:.0f}",
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
