"""The nights of a device on the page: what each cycle's candidate reached, which were released, why others were not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_far.report.page.markup import Section, Tile, figure, moment, paragraph, table, tiles
from edge_far.report.page.svg import Chart
from edge_far.tasks.figures import FIGURES

__all__ = ["nights_section"]

Night = Mapping[str, Any]


def nights_section(nights: Sequence[Night], examples: Mapping[str, int] | None) -> Section:
    """Return the section of a device's cycles, the first first (daemon/report/nights.py)."""
    if not nights:
        return Section("nights", "The nights", paragraph("No cycle has run yet."))
    body = tiles(_tiles(nights, examples))
    compared = [night for night in nights if night["candidate"] is not None]
    body += _chart(nights, compared) if compared else paragraph("No candidate has been measured yet.", "quiet")
    return Section("nights", "The nights", body + _reasons(nights) + _table(nights))


def _tiles(nights: Sequence[Night], examples: Mapping[str, int] | None) -> list[Tile]:
    ended = [night["outcome"] for night in nights]
    found = []
    released = [night for night in nights if night["outcome"] == "released" and night["candidate"] is not None]
    if released:
        last = released[-1]
        known = FIGURES[last["score"]]
        found.append(
            Tile(
                f"{known.title} at the last release",
                known.shown(last["candidate"]),
                f"was {known.shown(last['current'])}",
            )
        )
    found.append(Tile("nights", str(len(nights)), f"{ended.count('released')} released"))
    refused = ended.count("rejected")
    failed = ended.count("failed") + ended.count("discarded")
    found.append(Tile("refused", str(refused), f"{failed} failed or discarded"))
    if examples is not None:
        found.append(Tile("examples", f"{examples['examples']:,}", f"{examples['held_out']:,} held out"))
    return found


def _chart(nights: Sequence[Night], compared: Sequence[Night]) -> str:
    """Draw candidate and current release, each night on that night's held-out examples."""
    score = compared[-1]["score"]
    same = [night for night in compared if night["score"] == score]
    known = FIGURES[score]
    values = [value for night in same for value in (night["candidate"], night["current"])]
    room = max(0.02, (max(values) - min(values)) * 0.2)
    chart = Chart.of(
        (nights[0]["id"] - 0.5, nights[-1]["id"] + 0.5),
        (max(min(0.0, *values), min(values) - room), min(1.0, max(values) + room)),
    )
    step = max(1, -(-len(nights) // 8))
    chart.axes("cycle", known.title, told=known.format, x_ticks=[night["id"] for night in nights[::step]])
    for night in same:
        chart.upright(night["id"], night["current"], night["candidate"], "q thin")
    chart.line([(night["id"], night["current"]) for night in same], "q")
    for night in same:
        released = night["outcome"] == "released"
        now, was = known.shown(night["candidate"]), known.shown(night["current"])
        told = f"cycle {night['id']}, {night['outcome'] or 'under way'}: {now}, before {was}"
        chart.dot(
            (night["id"], night["candidate"]),
            "a" if released else "b",
            told,
            size=5 if len(same) <= 20 else 3.5,
            hollow=not released,
        )
    last = same[-1]
    told = f"last: {last['outcome'] or 'under way'}, {known.shown(last['candidate'])}"
    kind = "a" if last["outcome"] == "released" else "b"
    chart.text(chart.x.end, 13, told, f"{kind} label", anchor="end")
    title = f"{known.title} of {len(same)} candidates against the release they were to replace"
    told = paragraph("Filled: released. Ring: refused. Line: the release of the time, on the same examples.", "quiet")
    caption = f"{known.title[0].upper()}{known.title[1:]}, each night on the examples held out until then"
    return figure(chart.svg(title), caption, told)


def _reasons(nights: Sequence[Night]) -> str:
    """List why cycles ended without a release, the newest first."""
    refused = [night for night in nights if night["outcome"] in ("rejected", "failed", "discarded")]
    if not refused:
        return paragraph("No night ended without a release.", "quiet")
    rows = [(night["id"], night["outcome"], night["reason"] or "-") for night in reversed(refused)]
    return f"<h3>Why not</h3>{table(('cycle', 'outcome', 'reason'), rows, left=3, prose=True)}"


def _table(nights: Sequence[Night]) -> str:
    rows = []
    for night in reversed(nights):
        shown = FIGURES[night["score"]].shown if night["candidate"] is not None else str
        figures = (shown(night["current"]), shown(night["candidate"])) if night["candidate"] is not None else ("-", "-")
        base = "-" if night["base"] is None else FIGURES[night["score"]].shown(night["base"])
        seconds = "-" if night["seconds"] is None else f"{night['seconds']:,.0f}"
        peak = "-" if night["peak_mib"] is None else f"{night['peak_mib']:.0f}"
        rows.append(
            (
                night["id"],
                moment(night["started_s"]),
                night["outcome"] or "under way",
                night["release"] or "-",
                *figures,
                "-" if night["examples"] is None else night["examples"],
                base,
                seconds,
                peak,
            )
        )
    headings = (
        "cycle",
        "began",
        "outcome",
        "release",
        "before",
        "candidate",
        "held out",
        "base",
        "training, s",
        "peak, MiB",
    )
    return f"<details open><summary>Every night</summary>{table(headings, rows, left=4)}</details>"
