"""An evaluation on the page: its figures, which labels are taken for which, and every label's counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from edge_far.json_file import Count, Damaged, Within, decode_keys
from edge_far.report.page.markup import Section, Tile, escaped, figure, paragraph, table, tiles
from edge_far.report.page.svg import WIDTH, drawing
from edge_far.tasks.figures import FIGURES, figures_of

__all__ = ["check_evaluation", "evaluation_section"]

MOST_LABELS = 16  # of the matrix; of more labels those with the most mistakes
NAMES = 142  # width of the labels' column
SHOWN = 16  # characters of a label beside the matrix
Amounts = dict[str, Count]
Counts = Mapping[str, int]
Figure = Annotated[float, Within(-1e30, 1e30)]


def check_evaluation(document: Mapping[str, Any]) -> None:
    """Raise Damaged where this is no document of `edge-far eval`."""
    decode_keys({"task": str, "examples": Count, "loss": Figure, "data": str}, document)
    decode_keys({name: Figure for name in FIGURES if name in document}, document)
    if not figures_of(document):
        raise Damaged("holds no figure")
    if "confusion" in document:
        decode_keys({"confusion": dict[str, Amounts], "classes": dict[str, Amounts]}, document)
        for label, counts in document["classes"].items():
            decode_keys({"support": Count, "predicted": Count, "correct": Count}, counts, f"classes.{label}")


def evaluation_section(document: Mapping[str, Any]) -> Section:
    """Return the section of a document that `check_evaluation` let pass."""
    found = [Tile(FIGURES[name].title, FIGURES[name].shown(value)) for name, value in figures_of(document).items()]
    found += [Tile("examples", f"{document['examples']:,}"), Tile("loss", f"{document['loss']:.4f}")]
    body = tiles(found) + paragraph(f"Measured on {document['data']}.", "quiet")
    if "confusion" in document:
        body += _matrix(document["confusion"], document["classes"]) + _labels(
            document["confusion"], document["classes"]
        )
    else:
        body += paragraph("A confusion matrix is of tasks with one label a text; this evaluation has none.", "quiet")
    return Section("evaluation", "What is mistaken for what", body)


def _matrix(confusion: Mapping[str, Counts], classes: Mapping[str, Counts]) -> str:
    """Draw labels against answers; a cell is as dark as its share of the label's examples."""
    labels = [label for label, counts in classes.items() if counts["support"] or counts["predicted"]]
    chosen = set(sorted(labels, key=lambda label: -_mistakes(classes[label]))[:MOST_LABELS])
    shown = [label for label in labels if label in chosen]
    cell = (WIDTH - NAMES - 4) / max(1, len(shown))
    parts, small = [], " small" if cell < 20 else ""
    for row, label in enumerate(shown):
        y = 18 + row * cell
        name = label if len(label) <= SHOWN else f"{label[: SHOWN - 1]}…"
        parts.append(
            f'<text class="tick" x="{NAMES - 6}" y="{y + cell / 2 + 4:.1f}" text-anchor="end">{escaped(name)} {row + 1}'
            f"<title>{escaped(label)}</title></text>"
        )
        place = f'x="{NAMES + (row + 0.5) * cell:.1f}" y="12" text-anchor="middle"'
        parts.append(f'<text class="tick{small}" {place}>{row + 1}</text>')
        for column, said in enumerate(shown):
            count = confusion.get(label, {}).get(said, 0)
            share = count / max(1, classes[label]["support"])
            parts.append(
                _cell(NAMES + column * cell, y, cell, count, share, row == column, f"{label} taken for {said}")
            )
    caption = "Confusion matrix: the label in the row, the answer in the column"
    if len(shown) < len(labels):
        caption += f"; the {len(shown)} labels of {len(labels)} with the most mistakes"
    title = f"Confusion matrix of {len(shown)} labels; the counts stand in the table below"
    return figure(drawing(parts, 22 + cell * len(shown), title), caption)


def _cell(x: float, y: float, size: float, count: int, share: float, right: bool, told: str) -> str:
    kind, told = ("a", told.replace(" taken for ", " answered as ")) if right else ("b", told)
    place = f'x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{size - 1:.1f}" height="{size - 1:.1f}"'
    drawn = f'<rect class="s fill" {place} fill-opacity="0.35"/>'
    if count:
        drawn += f'<rect class="{kind} fill" {place} fill-opacity="{0.15 + 0.85 * share:.2f}">'
        drawn += f"<title>{escaped(told)}: {count}, {share:.0%}</title></rect>"
        if size >= 15:
            middle = f'x="{x + size / 2:.1f}" y="{y + size / 2 + 4:.1f}" text-anchor="middle"'
            kind = ("on" if share > 0.5 else "tick") + (" small" if size < 20 else "")
            drawn += f'<text class="{kind}" {middle}>{count}</text>'
    return drawn


def _labels(confusion: Mapping[str, Counts], classes: Mapping[str, Counts]) -> str:
    rows = []
    for label, counts in sorted(classes.items(), key=lambda each: (-_mistakes(each[1]), each[0])):
        wrong = {said: count for said, count in confusion.get(label, {}).items() if said != label and count}
        most = max(wrong, key=lambda said: wrong[said], default=None)
        total = counts["support"] + counts["predicted"]
        f1 = f"{2 * counts['correct'] / total:.3f}" if total else "-"
        taken = "" if most is None else f"{most} ({wrong[most]})"
        rows.append((label, counts["support"], counts["predicted"], counts["correct"], f1, taken))
    opened = table(("label", "examples", "answered", "right", "F1", "mostly taken for"), rows)
    return f"<details><summary>The numbers: every label, the most mistaken first</summary>{opened}</details>"


def _mistakes(counts: Counts) -> int:
    return counts["support"] + counts["predicted"] - 2 * counts["correct"]
