"""The ladder on the page: what each rung reached on held-out data, against its work, and which was taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from edge_far.json_file import Count, Damaged, Within, decode_keys
from edge_far.report.page.markup import Section, figure, numbers, paragraph
from edge_far.report.page.svg import Chart
from edge_far.tasks.figures import FIGURES

__all__ = ["check_choice", "choice_section"]

Figure = Annotated[float, Within(-1e15, 1e15)]
Amount = Annotated[float, Within(0, 1e15)]
ROW = {
    "rung": str,
    "pooling": str,
    "below_best": Figure,
    "below_best_error": Amount,
    "trained_parameters": Count,
    "state_mib": Amount,
    "gflop": Amount,
    "job_work": Amount,
}


def check_choice(document: Mapping[str, Any]) -> None:
    """Raise Damaged where this is no choice of ours (choice/outcome.py)."""
    decode_keys({"reason": str, "score": str, "score_title": str, "examples": Count, "held_out": Count}, document)
    decode_keys({"rows": tuple[dict[str, Any], ...], "chosen": dict[str, Any], "left_out": tuple[str, ...]}, document)
    score = document["score"]
    for number, row in enumerate([document["chosen"], *document["rows"]]):
        where = f"rows[{number - 1}]" if number else "chosen"
        decode_keys(ROW | {score: Figure}, row, where)
    if score not in FIGURES:
        raise Damaged(f"'score' is {score!r:.40}, a figure that nobody knows")
    if not document["rows"]:
        raise Damaged("'rows' is empty")


def choice_section(document: Mapping[str, Any]) -> Section:
    """Return the section of a document that `check_choice` let pass."""
    body = paragraph(f"Taken: {document['chosen']['rung']}. {document['reason']}.")
    body += paragraph(
        f"Each rung was trained on a part of {document['examples']:,} examples on the workstation and measured on "
        f"{document['held_out']:,} others. Bars are one standard error of the difference to the best.",
        "quiet",
    )
    body += figure(_picture(document), "Quality against work", _table(document))
    if document["left_out"]:
        body += paragraph(f"Left out: {'; '.join(document['left_out'])}.", "quiet")
    return Section("ladder", "How much trains", body)


def _picture(document: Mapping[str, Any]) -> str:
    """Return a dot a rung: its figure, with the error of the difference to the best, against its work."""
    score, rows, chosen = document["score"], document["rows"], document["chosen"]
    known = FIGURES[score]
    works = [row["job_work"] for row in rows if row["job_work"] > 0] or [1.0]
    low = min(row[score] - row["below_best_error"] for row in rows)
    high = max(row[score] + row["below_best_error"] for row in rows)
    room = max((high - low) * 0.15, 0.005)
    chart = Chart.of((min(works) / 1.6, max(works) * 1.6), (low - room, high + room), log_x=True)
    chart.axes("work of a run, full fine-tuning = 1", document["score_title"])
    for row in rows:
        taken = row == chosen
        x, y, error = max(row["job_work"], min(works)), row[score], row["below_best_error"]
        kind = "b" if taken else "a"
        chart.upright(x, y - error, y + error, f"{kind} thin")
        told = f"{row['rung']}, {row['pooling']}: {known.shown(y)}, {error:.3f} standard error, work {x:.3f}"
        chart.dot((x, y), kind, told, size=6 if taken else 4, hollow=not taken)
        right = chart.x(x) > 270
        chart.label(
            (x, y), row["rung"], kind if taken else "q", anchor="end" if right else "start", dx=-9 if right else 9
        )
    return chart.svg(f"{document['score_title']} of each rung against its work; {chosen['rung']} is taken")


def _table(document: Mapping[str, Any]) -> str:
    score = document["score"]
    listed = [
        (
            ("→ " if row == document["chosen"] else "") + row["rung"],
            row["pooling"],
            FIGURES[score].shown(row[score]),
            f"{row['below_best']:.3f} ± {row['below_best_error']:.3f}",
            f"{row['job_work']:.3f}",
            f"{row['gflop']:,.0f}",
            f"{row['trained_parameters']:,}",
            f"{row['state_mib']:.1f}",
        )
        for row in document["rows"]
    ]
    title = document["score_title"]
    headings = ("rung", "head reads", title, "below the best", "work", "GFLOP", "trained", "state, MiB")
    return numbers(headings, listed, left=2)
