"""What learns, on the page: the learning metric block by block, the FFN nodes that learn, and the attention heads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from edge_far.json_file import Within
from edge_far.report.page.markup import Section, figure, numbers, paragraph
from edge_far.report.page.svg import WIDTH, Chart, drawing

__all__ = ["Attention", "Block", "Selected", "learners_section"]

LEFT = 46
END = WIDTH - 44  # of a row; the count of its learners stands behind it
ROW, BAR = 16, 11  # heights
MOST_PLACES = 100  # of a row; a place stands for several nodes where there are more
LEVELS = 5  # of darkness


Amount = Annotated[float, Within(0, 1e15)]
MOST_HEADS = 64  # that are drawn


@dataclass(frozen=True)
class Block:
    """One block of selection.json (far/report.py)."""

    block: int
    count: int
    learners: tuple[int, ...]
    metric: tuple[Amount, ...] | None
    quantiles: Mapping[str, Amount] | None
    threshold: Amount | None
    captured: Amount | None


@dataclass(frozen=True)
class Attention:
    """The same of attention heads."""

    retention: float
    split_half_overlap: float | None
    chance: float | None
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Selected:
    """The content of selection.json."""

    version: int
    method: str
    retention: float
    priming: Mapping[str, Any] | None
    blocks: tuple[Block, ...]
    attention: Attention | None


def learners_section(found: Selected, ffn: int, heads: int) -> Section:
    """Return the section; a block has `ffn` nodes and `heads` heads."""
    body = paragraph(_told(found))
    charts = [_metric(found.blocks)] if any(block.quantiles for block in found.blocks) else []
    charts += [_nodes(found.blocks, ffn), _heads(found.attention, heads)]
    return Section("learners", "What learns", f'{body}<div class="charts">{"".join(charts)}</div>')


def _told(found: Selected) -> str:
    share = f"{found.retention:.0%} of the FFN nodes of a block learn"
    if found.priming is None:
        return f"{share}. They were chosen without priming ({found.method}), so nothing was measured."
    overlap = found.priming.get("split_half_overlap")
    sure = "" if not isinstance(overlap, float) else f"; its two halves agree on {overlap:.0%} of them"
    chance = found.priming.get("chance")
    sure += f" (chance: {chance:.0%})" if sure and isinstance(chance, float) else ""
    return (
        f"{share}: those that moved the most while the model was primed for {found.priming.get('steps')} steps{sure}."
    )


def _metric(blocks: Sequence[Block]) -> str:
    """Draw the quantiles of the metric in each block, and the smallest that was chosen."""
    measured = [block for block in blocks if block.quantiles]
    values = [value for block in measured for value in (block.quantiles or {}).values() if value > 0]
    if not values:
        return paragraph("The learning metric is 0 everywhere.", "quiet")
    least = min(values)
    chart = Chart.of((-0.6, len(blocks) - 0.4), (least / 1.3, max(values) * 1.3), log_y=True)
    chart.axes("block, the first is 0", "learning metric", x_ticks=[block.block for block in blocks])
    width = min(18.0, 240 / len(blocks))
    rows = []
    for block in measured:
        q = {name: max(value, least) for name, value in (block.quantiles or {}).items()}
        if not {"0.05", "0.25", "0.5", "0.75", "0.95", "1"} <= q.keys():
            continue
        told = f"block {block.block}: half of the nodes between {q['0.25']:.3g} and {q['0.75']:.3g}"
        chart.upright(block.block, q["0.05"], q["0.95"], "a thin")
        chart.bar(block.block, width, q["0.25"], q["0.75"], "a", told)
        chart.dot((block.block, q["1"]), "a", f"block {block.block}: largest {q['1']:.3g}", size=2)
        if block.threshold is not None:
            chart.dot(
                (block.block, block.threshold),
                "b",
                f"block {block.block}: learns from {block.threshold:.3g} on",
                hollow=True,
            )
        captured = "-" if block.captured is None else f"{block.captured:.0%}"
        threshold = "-" if block.threshold is None else f"{block.threshold:.3g}"
        rows.append((block.block, block.count, f"{q['0.5']:.3g}", f"{q['1']:.3g}", threshold, captured))
    headings = ("block", "learners", "median", "largest", "learns from", "share of the metric")
    more = paragraph("Box: the middle half of the nodes; line: 5 to 95 %; ring: a node learns from there on.", "quiet")
    return figure(
        chart.svg(f"Learning metric of the FFN nodes in {len(measured)} blocks"),
        "Learning metric by block",
        more + numbers(headings, rows, left=0),
    )


def _nodes(blocks: Sequence[Block], ffn: int) -> str:
    """Draw a row a block, its nodes from left to right: a place is as dark as the share of its nodes that learn."""
    places = max(1, min(ffn, MOST_PLACES))
    shares = [_shares(block, ffn, places) for block in blocks]
    densest = max((share for row in shares for share in row), default=0.0) or 1.0
    parts, width = [], (END - LEFT) / places
    for row, block in enumerate(blocks):
        top = 4 + row * ROW
        told = f"<title>block {block.block}: {block.count} of {ffn} nodes learn</title>"
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{block.block}</text>')
        parts.append(f'<rect class="s fill" x="{LEFT}" y="{top}" width="{END - LEFT}" height="{BAR}">{told}</rect>')
        for level in range(1, LEVELS + 1):
            dark = [place for place, share in enumerate(shares[row]) if math.ceil(LEVELS * share / densest) == level]
            cells = "".join(f"M{LEFT + place * width:.1f} {top}v{BAR}h{width:.1f}v-{BAR}z" for place in dark)
            if cells:
                parts.append(f'<path class="b fill" fill-opacity="{level / LEVELS:g}" d="{cells}">{told}</path>')
        parts.append(f'<text class="tick" x="{WIDTH}" y="{top + 10}" text-anchor="end">{block.count:,}</text>')
    learn = sum(block.count for block in blocks)
    title = f"{learn} of {ffn * len(blocks)} FFN nodes learn, in {len(blocks)} blocks"
    shown = numbers(("block", "nodes that learn", "of"), [(b.block, b.count, ffn) for b in blocks], left=0)
    more = "" if places == ffn else paragraph("The darker, the more of the nodes at this place learn.", "quiet")
    return figure(drawing(parts, 8 + ROW * len(blocks), title), "FFN nodes that learn, a row a block", more + shown)


def _shares(block: Block, ffn: int, places: int) -> list[float]:
    """Return which share of the nodes learns at each place of a row."""
    learn = [0] * places
    edges = [-(-place * ffn // places) for place in range(places + 1)]  # the first node of each place
    there = [end - start for start, end in itertools.pairwise(edges)]
    for node in block.learners:
        if 0 <= node < ffn:
            learn[node * places // ffn] += 1
    return [found / max(1, of) for found, of in zip(learn, there, strict=True)]


def _heads(found: Attention | None, heads: int) -> str:
    caption = "Attention heads that learn, a row a block"
    if found is None:
        return figure(
            "", caption, paragraph("Attention is not split: where a block learns, all its heads do.", "quiet")
        )
    parts = []
    step = min(24.0, (WIDTH - LEFT - 10) / max(1, heads))
    for row, block in enumerate(found.blocks):
        middle = 12 + row * 20
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{middle + 4}" text-anchor="end">{block.block}</text>')
        for head in range(min(heads, MOST_HEADS)):
            learns = head in block.learners
            value = (
                f", metric {block.metric[head]:.3g}" if block.metric is not None and head < len(block.metric) else ""
            )
            told = f"<title>block {block.block}, head {head}: {'learns' if learns else 'is frozen'}{value}</title>"
            kind, radius = ("b dot", 6) if learns else ("s fill", 3)
            place = f'cx="{LEFT + (head + 0.5) * step:.1f}" cy="{middle}" r="{radius}"'
            parts.append(f'<circle class="{kind}" {place}>{told}</circle>')
    rows = [(b.block, ", ".join(map(str, b.learners)) or "none") for b in found.blocks]
    title = f"{sum(b.count for b in found.blocks)} of {heads * len(found.blocks)} attention heads learn"
    shown = numbers(("block", "heads that learn"), rows, left=2)
    return figure(drawing(parts, 4 + 20 * len(found.blocks), title), caption, shown)
