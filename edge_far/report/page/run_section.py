"""A training run on the page: its figures, the loss, the headline figure, memory against the budget."""

from __future__ import annotations

from collections.abc import Iterable

from edge_far.report.page.markup import Section, Tile, figure, numbers, paragraph, tiles
from edge_far.report.page.svg import Chart, spread
from edge_far.report.plot import smoothed, time_unit
from edge_far.report.runlog import RunLog
from edge_far.tasks.figures import FIGURES

__all__ = ["run_section"]

LISTED = 12  # rows of a table of numbers


def run_section(name: str, log: RunLog, number: int, *, reason: bool = True) -> Section:
    """Return the section of a run; `number` counts runs from 1. Without `reason` another section says why so."""
    charts = [_loss(log), *([_figure(log)] if log.evals else []), _memory(log)]
    body = tiles(_tiles(log)) + "".join(paragraph(note, "quiet") for note in _notes(log, reason))
    return Section(f"run-{number}", f"Training: {name}", f'{body}<div class="charts">{"".join(charts)}</div>')


def _tiles(log: RunLog) -> Iterable[Tile]:
    last = log.steps[-1]
    if log.evals:
        point = log.evals[-1]
        known = FIGURES[point.figure]
        yield Tile(f"{known.title}, held out", known.shown(point.value), f"after step {point.step:,}")
    yield Tile("training loss", f"{smoothed([step.loss for step in log.steps])[-1]:.3f}", "smoothed")
    unit, divisor = time_unit(log)
    planned = "" if log.planned_steps in (None, last.step) else f"of {log.planned_steps:,} planned, "
    yield Tile("steps", f"{last.step:,}", f"{planned}{last.time_s / divisor:.1f} {unit}")
    if log.peak_rss_mib is not None:
        budget = log.budget_mib
        yield Tile("peak memory", f"{log.peak_rss_mib:.0f} MiB", f"budget {budget:.0f} MiB" if budget else "no budget")


def _notes(log: RunLog, reason: bool) -> Iterable[str]:
    where = "" if log.profile is None else f"Profile {log.profile}. "
    method = (
        "" if log.method is None else f"Method {log.method}" + (f": {log.reason}." if log.reason and reason else ".")
    )
    if where or method:
        yield where + method
    if log.resumes:
        yield f"Resumed after step {', '.join(f'{step:,}' for step in log.resumes)}."
    if log.torn_lines:
        yield f"Torn lines of the log that were passed over: {log.torn_lines}."


def _loss(log: RunLog) -> str:
    raw = [(float(point.step), point.loss) for point in log.steps]
    smooth = list(zip([x for x, _ in raw], smoothed([y for _, y in raw]), strict=True))
    chart = Chart.of((min(1.0, raw[0][0]), raw[-1][0]), (0.0, max(y for _, y in raw) * 1.05 or 1.0))
    chart.axes("optimiser step", "training loss")
    chart.band([(x, low, high) for x, _, low, high in spread(raw)], "a")
    if len(raw) <= 300:
        chart.line(raw, "a thin")
    mean = [(x, y) for x, y, _, _ in spread(smooth)]
    chart.line(mean, "a")
    for step in log.resumes:
        chart.upright(step, chart.y.low, chart.y.high, "q thin")
    chart.label(smooth[-1], f"{smooth[-1][1]:.3f}", "a", anchor="end", dx=0, dy=-9)
    title = f"Training loss falls from {smooth[0][1]:.3f} to {smooth[-1][1]:.3f} over {raw[-1][0]:,.0f} steps"
    shown = [(f"{x:,.0f}", f"{y:.4f}") for x, y, _, _ in spread(smooth, LISTED)]
    return figure(chart.svg(title), "Loss: each step, and smoothed", numbers(("step", "smoothed loss"), shown, left=0))


def _figure(log: RunLog) -> str:
    last = log.evals[-1]
    known = FIGURES[last.figure]
    points = [(float(point.step), point.value) for point in log.evals if point.figure == last.figure]
    values = [value for _, value in points]
    bounded = known.high <= 1
    low, high = (min(0.0, *values), 1.0) if bounded else (0.0, max(values) * 1.1 or 1.0)
    chart = Chart.of((min(1.0, points[0][0]), float(log.steps[-1].step)), (low, high))
    chart.axes("optimiser step", known.title, told=known.format)
    chart.line(points, "c")
    for point in points:
        chart.dot(point, "c", f"step {point[0]:,.0f}: {known.shown(point[1])}")
    above = chart.y(points[-1][1]) > 40
    chart.label(points[-1], known.shown(last.value), "c", anchor="end", dx=2, dy=-10 if above else 18)
    title = f"{known.title} on held-out data: {known.shown(values[0])} first, {known.shown(values[-1])} last"
    rows = [(f"{step:,.0f}", known.shown(value)) for step, value in points]
    caption = f"{known.title[0].upper()}{known.title[1:]} on held-out data"
    return figure(chart.svg(title), caption, numbers(("step", known.title), rows, left=0))


def _memory(log: RunLog) -> str:
    caption = "Resident memory against the budget"
    if not log.memory:
        return figure("", caption, paragraph("Not measured: the log holds no resident sizes.", "quiet"))
    unit, divisor = time_unit(log)
    points = [(time_s / divisor, size) for time_s, size in log.memory]
    known = [size for size in (log.budget_mib, log.peak_rss_mib, max(size for _, size in points)) if size is not None]
    chart = Chart.of((0.0, max(points[-1][0], 1e-9)), (0.0, max(known) * 1.12))
    chart.axes(f"time, {unit}", "MiB")
    line = [(x, high) for x, _, _, high in spread(points)]
    chart.band([(x, 0.0, y) for x, y in line], "b")
    chart.line(line, "b")
    if log.budget_mib is not None:
        chart.level(log.budget_mib, "q", f"budget {log.budget_mib:.0f} MiB")
    if log.peak_rss_mib is not None:
        beside = chart.y(log.peak_rss_mib) - (chart.y(log.budget_mib) if log.budget_mib else 0.0)
        share = f" ({log.peak_rss_mib / log.budget_mib:.0%} of the budget)" if log.budget_mib else ""
        dy = -7 if beside > 24 else 16
        chart.label(
            (chart.x.high, log.peak_rss_mib), f"peak {log.peak_rss_mib:.0f} MiB{share}", "b", anchor="end", dx=0, dy=dy
        )
    title = f"Memory peaks at {max(known[-2:]):.0f} MiB" + (
        f"; the budget is {log.budget_mib:.0f}" if log.budget_mib else ""
    )
    rows = [(f"{x:.1f}", f"{y:.0f}") for x, _, _, y in spread(points, LISTED)]
    return figure(chart.svg(title), caption, numbers((f"time, {unit}", "MiB, the most"), rows, left=0))
