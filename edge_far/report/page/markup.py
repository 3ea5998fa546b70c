"""Pieces of HTML. Whatever comes from data goes through `escaped`; what these functions return is markup already."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_far.quoting import one_line

__all__ = ["Section", "Tile", "escaped", "figure", "moment", "numbers", "paragraph", "table", "tiles"]


@dataclass(frozen=True)
class Section:
    """One part of the page: the anchor, the heading as plain text, and markup."""

    anchor: str
    title: str
    body: str


@dataclass(frozen=True)
class Tile:
    """A figure that is seen first: its name, its value, and a few words beside it, all plain text."""

    name: str
    value: str
    note: str = ""


def escaped(text: object) -> str:
    """Return a text that is shown as it is, whatever it holds; what could steer a terminal is spelled out too."""
    return html.escape(one_line(str(text)), quote=True)


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{escaped(text)}</p>"


def tiles(found: Iterable[Tile]) -> str:
    """Return figures as a list."""
    items = "".join(
        f"<div><dt>{escaped(tile.name)}</dt><dd><b>{escaped(tile.value)}</b> "
        f"<span>{escaped(tile.note)}</span></dd></div>"
        for tile in found
    )
    return f'<dl class="tiles">{items}</dl>'


def figure(drawing: str, caption: str, more: str = "") -> str:
    """Return a drawing under its caption, and what belongs to it (markup)."""
    return f"<figure><figcaption>{escaped(caption)}</figcaption>{drawing}{more}</figure>"


def numbers(headings: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """Return a table that opens on demand: what a drawing shows, for those who cannot see it."""
    return f"<details><summary>The numbers</summary>{table(headings, rows, left=left)}</details>"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1, prose: bool = False) -> str:
    """Return a table of plain texts; all columns but the first `left` are numbers.

    It scrolls by itself where it is wide; with `prose` its cells break instead.
    """
    kinds = ["" if number < left else ' class="n"' for number in range(len(headings))]
    head = "".join(f'<th scope="col"{kind}>{escaped(each)}</th>' for each, kind in zip(headings, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escaped(c)}</td>" for c, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    kind = ' class="prose"' if prose else ""
    inside = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide" tabindex="0"><table{kind}>{inside}</table></div>'


def moment(seconds: float) -> str:
    """Return a time of the store's clock for people; what is no time is shown as a dash."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError, TypeError):
        return "-"
