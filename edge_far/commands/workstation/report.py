"""Show what happened: a run as one picture (--out), or runs and a device's nights as one page (--html).

The picture needs matplotlib: draw it on the workstation, on a copy of the run's log.jsonl if need be. The page needs
nothing but edge-far and is written on the device as well: one file that loads nothing from elsewhere. It tells what its
sources know: RUN the loss, the figures and the memory; STATE the nights of a device; --bundle the ladder and the
choice, what learns and why; --eval which label is mistaken for which.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.commands.common import open_checked, refuse_another_bundle
from edge_far.console import Console
from edge_far.errors import BundleError, DataError, OutputExists, UsageError
from edge_far.json_file import Damaged, read_document
from edge_far.process.privacy import keep_caches_together
from edge_far.report.plot import draw_run
from edge_far.report.runlog import RunLog, read_run_log
from edge_far.storage import unreadable
from edge_far.tasks.figures import FIGURES

EXAMPLES = """examples:
  edge-far report runs/monday --out monday.png
  edge-far report log.jsonl --out monday.png     a log copied from the device
  edge-far eval bundle --run run --data test.jsonl --json > eval.json
  edge-far report run --bundle bundle --eval eval.json --html run.html
  edge-far report /var/lib/edge-far --html device.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge-far report`."""
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="RUN|STATE",
        help="directory of a run, or its log.jsonl; with --html several, or the daemon's state directory",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="the picture to write")
    parser.add_argument("--html", type=Path, metavar="FILE.html", help="the page to write")
    parser.add_argument("--bundle", type=Path, metavar="BUNDLE", help="with --html: what was trained, and why so")
    parser.add_argument("--eval", type=Path, metavar="FILE", help="with --html: the document of 'edge-far eval --json'")
    parser.add_argument("--title", help="heading (default: the profile's name)")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Write the picture or the page; return what it shows."""
    _check(options)
    return _page(options, console) if options.html is not None else _picture(options, console)


def _check(options: argparse.Namespace) -> None:
    """Refuse what contradicts itself."""
    if (options.out is None) == (options.html is None):
        raise UsageError(
            "name a picture or a page", where="edge-far report", hint="--out FILE.png, or --html FILE.html"
        )
    wanted, where, endings = (
        (options.out, "--out", (".png",)) if options.html is None else (options.html, "--html", (".html", ".htm"))
    )
    if wanted.suffix.lower() not in endings:
        raise UsageError(f"'{wanted}' is not a {endings[0]} file", where=where, hint=f"name it FILE{endings[0]}")
    if options.html is not None:
        _check_page(options.html)
        return
    if len(options.sources) > 1:
        raise UsageError("a picture is of one run", where="--out", hint="name one run, or --html FILE.html")
    for name in ("bundle", "eval"):
        if getattr(options, name) is not None:
            raise UsageError("a picture does not show it", where=f"--{name}", hint="write a page: --html FILE.html")


def _check_page(path: Path) -> None:
    """Refuse what is there and is no page of ours: OutputExists (73)."""
    from edge_far.report.page.document import is_page

    if path.is_file() and not is_page(path):
        raise OutputExists("is there, and no page of edge-far", where=str(path), hint="name another file")


def _picture(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    log = _read(options.sources[0], console)
    keep_caches_together()
    draw_run(log, options.out, title=options.title or f"Training on {log.profile or 'this machine'}")
    return {"picture": str(options.out), **_facts(log)}


def _read(source: Path, console: Console) -> RunLog:
    log = read_run_log(source)
    if log.torn_lines:
        console.warn(f"{log.torn_lines} torn line(s) of the log skipped")
    return log


def _facts(log: RunLog) -> dict[str, Any]:
    last = log.evals[-1] if log.evals else None
    return {
        "profile": log.profile,
        "method": log.method,
        "reason": log.reason,
        "steps": log.steps[-1].step,
        "planned_steps": log.planned_steps,
        "final_loss": log.steps[-1].loss,
        "score": last.figure if last is not None else None,
        **({last.figure: last.value} if last is not None else {"accuracy": None}),
        "peak_rss_mib": log.peak_rss_mib,
        "budget_mib": log.budget_mib,
        "resumes": len(log.resumes),
    }


def _page(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from edge_far.report.page.document import page
    from edge_far.report.page.markup import Section
    from edge_far.report.page.run_section import run_section
    from edge_far.storage import write_atomically

    evaluation = None if options.eval is None else _evaluation(options.eval)
    sections: list[Section] = [] if options.bundle is None else _of_bundle(options.bundle, options.sources)
    chosen = any(each.anchor == "ladder" for each in sections)
    runs, lead, title = [], "", options.title
    for source in options.sources:
        if (source / "store.sqlite3").is_file():
            found, told = _of_state(source)
            sections.insert(0, found)
            lead, title = told, title or "A device that adapts"
            continue
        log = _read(source, console)
        runs.append({"run": str(source), **_facts(log)})
        sections.append(run_section(source.resolve().name, log, len(runs), reason=not chosen))
    if evaluation is not None:
        sections.append(evaluation)
    if runs:
        title = title or f"Training on {runs[0]['profile'] or 'this machine'}"
        lead = lead or _lead(runs)
    write_atomically(options.html, page(title or "edge-far", lead, "", sections).encode())
    return {"page": str(options.html), "sections": [each.anchor for each in sections], "runs": runs}


def _lead(runs: list[dict[str, Any]]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs, one below the other."
    parts = [f"{runs[0]['steps']:,} optimiser steps"]
    if (name := runs[0]["score"]) is not None:
        parts.append(f"{FIGURES[name].title} {FIGURES[name].shown(runs[0][name])} on held-out data")
    return ", ".join(parts) + "."


def _of_bundle(path: Path, sources: list[Path]) -> list[Any]:
    """Return the sections that a bundle's records give: the choice, where there was one, and what learns.

    Raises ConfigError (78) where a run beside it, whose record is there, was trained from another bundle.
    """
    from edge_far.report.page.choice_section import check_choice, choice_section
    from edge_far.report.page.learners_section import Selected, learners_section

    bundle = open_checked(argparse.Namespace(bundle=path, profile=None))
    for source in sources:
        if (source / "run.json").is_file():
            refuse_another_bundle(bundle, source)
    model, sections = bundle.manifest.model, []
    if "choice.json" in bundle.manifest.files:
        choice = bundle.document("choice.json", dict[str, Any])
        try:
            check_choice(choice)
        except Damaged as error:
            hint = "export it again"
            raise BundleError(
                f"the document is damaged: {error}", where=str(path / "choice.json"), hint=hint
            ) from error
        sections.append(choice_section(choice))
    return [*sections, learners_section(bundle.document("selection.json", Selected), model.ffn, model.heads)]


def _evaluation(path: Path) -> Any:
    from edge_far.report.page.evaluation_section import check_evaluation, evaluation_section

    hint = "write it with 'edge-far eval BUNDLE --data FILE --json'"
    try:
        document = read_document(path, dict[str, Any])
        check_evaluation(document)
    except OSError as error:
        raise unreadable(error, path, hint) from error
    except Damaged as error:
        raise DataError(f"is no evaluation: {error}", where=str(path), hint=hint) from error
    return evaluation_section(document)


def _of_state(path: Path) -> tuple[Any, str]:
    """Return the section of a device's nights, and how the device is in one sentence; nothing there is changed."""
    from edge_far.commands.adaptation.status import looked
    from edge_far.daemon.report.nights import nights
    from edge_far.daemon.state import StateDirectory
    from edge_far.daemon.store.examples import Store
    from edge_far.daemon.store.journal import Journal
    from edge_far.report.page.nights_section import nights_section

    status = looked(StateDirectory(path), None, Path("/"))
    store = Store(path / "store.sqlite3", busy_timeout_s=5.0)
    try:
        found = nights(Journal(store))
    finally:
        store.close()
        StateDirectory(path).give_to_owner()
    return nights_section(found, status["examples"]), str(status["summary"])


def render(document: dict[str, Any]) -> str:
    """Return the line a person sees."""
    if "page" in document:
        return f"{document['page']}: {', '.join(document['sections'])}"
    parts = [f"{document['steps']} steps, loss {document['final_loss']:.3f}"]
    if (name := document["score"]) is not None:
        shown = f"{document[name]:.1%}" if name == "accuracy" else FIGURES[name].shown(document[name])
        parts.append(f"eval {FIGURES[name].title} {shown}")
    if document["peak_rss_mib"] is not None:
        budget = "" if document["budget_mib"] is None else f" of {document['budget_mib']:.0f}"
        parts.append(f"peak memory {document['peak_rss_mib']:.0f}{budget} MiB")
    line = f"{document['picture']}: " + ", ".join(parts)
    if document["reason"] is None:
        return line
    return f"{line}\nmethod {document['method']}: {document['reason']}"
