"""What a page is made of in these tests: a run, a choice, a selection with heads, an evaluation, nights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

from edge_far.json_file import decode
from edge_far.report.page.choice_section import choice_section
from edge_far.report.page.document import page
from edge_far.report.page.evaluation_section import evaluation_section
from edge_far.report.page.learners_section import Selected, learners_section
from edge_far.report.page.nights_section import nights_section
from edge_far.report.page.run_section import run_section
from edge_far.report.runlog import EvalPoint, RunLog, StepPoint

HOSTILE = "<script>alert(1)</script>"
ANCHORS = ["ladder", "learners", "run-1", "evaluation", "nights"]
FIFTHS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def a_log(steps: int = 700) -> RunLog:
    """Return a run that was resumed, with four evaluations."""
    points = [StepPoint(n, n * 0.5, 3.0 / n + 0.1 * (n % 3)) for n in range(1, steps + 1)]
    evals = [EvalPoint(n * steps // 4, "accuracy", 0.5 + 0.1 * n) for n in range(1, 5)]
    memory = [(point.time_s, 200.0 + point.step % 7) for point in points]
    facts: dict[str, Any] = {"profile": "rpi-zero2w-512", "method": "top-2", "reason": HOSTILE}
    return RunLog(points, evals, memory, budget_mib=300.0, peak_rss_mib=240.0, resumes=[steps // 3], **facts)


def choice() -> dict[str, Any]:
    """Return a choice.json: head, and top-2, which was taken."""

    def row(rung: str, score: float, work: float) -> dict[str, Any]:
        costs = {"trained_parameters": 1234, "state_mib": 1.5, "gflop": 99.0, "job_work": work}
        below = {"below_best": round(0.8 - score, 3), "below_best_error": 0.01}
        return {
            "rung": rung,
            "pooling": "mean",
            "learning_rate": 1e-3,
            "epochs": 4,
            "matthews": score,
            **below,
            **costs,
        }

    rows = [row("head", 0.7, 0.1), row("top-2", 0.8, 0.3)]
    told = {"reason": "top-2 is the best", "score": "matthews", "score_title": "Matthews' correlation"}
    return {"rows": rows, "chosen": rows[1], "left_out": [HOSTILE], "examples": 528, "held_out": 414, **told}


def selection() -> Selected:
    """Return what the document below says."""
    found: Selected = decode(Selected, selection_document())
    return found


def selection_document() -> dict[str, Any]:
    """Return a selection.json of three blocks, the lowest of which is frozen, of 40 nodes and 4 heads."""

    def block(number: int, size: int, learners: list[int]) -> dict[str, Any]:
        metric = [1e-4 * (1 + (7 * node) % size) for node in range(size)] if learners else None
        quantiles = None if metric is None else {f"{q:g}": sorted(metric)[int(q * (size - 1))] for q in FIFTHS}
        return {
            **{"block": number, "count": len(learners), "learners": learners, "metric": metric, "quantiles": quantiles},
            **{"threshold": 3e-3 if learners else None, "captured": 0.25 if learners else None},
        }

    priming = {"steps": 50, "seconds": 1.0, "split_half_overlap": 0.6, "chance": 0.1}
    nodes = [block(0, 40, []), block(1, 40, [1, 5, 39]), block(2, 40, [0, 20, 21])]
    heads = [block(0, 4, []), block(1, 4, [2]), block(2, 4, [0])]
    attention = {"retention": 0.25, "split_half_overlap": 1.0, "chance": 0.25, "blocks": heads}
    document = {"version": 2, "method": "far", "retention": 0.1, "priming": priming, "blocks": nodes}
    return {**document, "attention": attention}


def evaluation(labels: tuple[str, ...] = ("on", HOSTILE)) -> dict[str, Any]:
    """Return the document of `edge-far eval`: each label is once taken for the next."""
    count = len(labels)
    confusion = {label: {label: 8, labels[(number + 1) % count]: 1} for number, label in enumerate(labels)}
    classes = {label: {"support": 9, "predicted": 9, "correct": 8} for label in labels}
    told = {"task": "classify", "examples": 9 * count, "loss": 0.25, "data": f"{HOSTILE}.jsonl"}
    return {**told, "accuracy": 8 / 9, "confusion": confusion, "classes": classes}


def nights() -> list[dict[str, Any]]:
    """Return a night that was released, one refused, one failed, one under way."""
    shared = {"started_s": 1.7e9, "score": "accuracy", "seconds": 12.5, "peak_mib": 110.0}
    nothing = {"release": None, "examples": None, "candidate": None, "current": None, "base": None}
    measured = {"examples": 120, "current": 0.85, "base": 0.9}
    return [
        {
            **shared,
            **measured,
            "id": 1,
            "outcome": "released",
            "release": "000001-ab",
            "candidate": 0.9,
            "reason": "better",
        },
        {**shared, **measured, "id": 2, "outcome": "rejected", "release": None, "candidate": 0.8, "reason": HOSTILE},
        {**shared, **nothing, "id": 3, "outcome": "failed", "reason": "the trainer died"},
        {**shared, **nothing, "id": 4, "outcome": None, "reason": None},
    ]


def whole_page() -> str:
    """Return a page with every section, whose data try to break out of it."""
    sections = [
        choice_section(choice()),
        learners_section(selection(), 40, 4),
        run_section(HOSTILE, a_log(), 1),
        evaluation_section(evaluation()),
        nights_section(nights(), {"examples": 1200, "held_out": 240}),
    ]
    return page(f"Title {HOSTILE}", f"Lead {HOSTILE}", "", sections)


class Parsed(HTMLParser):
    """A page's elements with their attributes, its texts, and whether every element is closed in its turn."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input", "base"})
    DRAWN = frozenset({"line", "circle", "rect", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Mapping[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element, which is closed already."""
        self.elements.append((tag, dict(attrs)))
        assert tag in self.DRAWN

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last, which it must be."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep the text and the element it stands in."""
        self.texts.append((self.open[-1] if self.open else "", data))

    def named(self, tag: str) -> Iterator[Mapping[str, str | None]]:
        """Yield the attributes of every element of a name."""
        return (attributes for name, attributes in self.elements if name == tag)

    @property
    def text(self) -> str:
        """Return what is read, the style sheet left out."""
        return " ".join(data for tag, data in self.texts if tag != "style")
