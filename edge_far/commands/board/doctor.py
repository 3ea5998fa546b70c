"""Will edge-far run on this machine, and what should be put right first: a finding a topic, each with a line to type.

Nothing is changed; a file is written to the directories of state and cache, and removed again. Exit code by the worst
finding: 0 (ok, note), 1 (warn: works, but put it right), 69 (bad: does not work).
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_far import __version__
from edge_far.commands.arguments import Number, check_root
from edge_far.console import Console
from edge_far.daemon.state import DEFAULT_STATE
from edge_far.errors import OutputExists, Unavailable, UsageError
from edge_far.json_file import Within
from edge_far.storage import check_file

if TYPE_CHECKING:
    from edge_far.doctor.finding import Finding, Subject

EXAMPLES = """examples:
  edge-far doctor
  sudo edge-far doctor            # may look into the service's directories, too
  edge-far doctor --json
  edge-far doctor --root /mnt     # another system's files: a card in a reader
  edge-far doctor --bench         # and how quick it is: a block of text for a report
  edge-far doctor --bench --bundle bundle    # the bundle's own operators too: 'edge-far plan' then knows its times
  edge-far doctor --bench --bundle bundle --keep-calibration pi4.json    # ... on another machine, too
"""
EXIT_CODES = {"ok": 0, "note": 0, "warn": 1, "bad": Unavailable.exit_code}
WIDTH = 110
BENCH_SECONDS = 20.0
SUMMARIES = {
    "ok": "All is well.",
    "note": "It runs here; see the notes.",
    "warn": "It runs here, but put this right:",
    "bad": "It does not run here as it is, or data are in danger. Put this right first:",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far doctor`."""
    parser.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR", help="read another system's files, which lie below DIR"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=DEFAULT_STATE,
        metavar="DIR",
        help="the service's state directory (default: %(default)s)",
    )
    parser.add_argument("--bench", action="store_true", help="measure products and memory, and print a block to paste")
    parser.add_argument(
        "--bench-seconds",
        action=Number,
        type=float,
        within=Within(1, 60),
        unit=" s",
        metavar="S",
        help=f"with --bench: time for that, at most (default: {BENCH_SECONDS:g})",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help="with --bench: measure its operators, for its plan (10 s)",
    )
    parser.add_argument(
        "--keep-calibration",
        type=Path,
        metavar="FILE",
        help="with --bundle: write what was measured to a file, for 'edge-far plan --calibration' elsewhere",
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Examine, and measure where that is asked; return every finding and the worst verdict."""
    from edge_far.doctor.examination import examine, subject_below
    from edge_far.doctor.finding import worst

    for name in ("bundle", "bench_seconds"):
        if getattr(options, name) is not None and not options.bench:
            where = f"--{name.replace('_', '-')}"
            raise UsageError("measures nothing without --bench", where=where, hint="add --bench")
    keep: Path | None = options.keep_calibration
    if keep is not None and options.bundle is None:
        raise UsageError("the plan's times are of a bundle", where="--keep-calibration", hint="add --bundle BUNDLE")
    if keep is not None and keep.exists():
        raise OutputExists("exists already", where=str(keep), hint="name another file")
    if keep is not None:
        check_file(keep)
    check_root(options.root)
    subject = subject_below(options.root, state=options.state)
    if options.bench and not subject.is_here:
        raise UsageError("another system's speed cannot be measured", where="--bench", hint="leave out --root")
    findings = examine(subject)
    measured, block = _measured(subject, findings, options, console) if options.bench else (None, None)
    return {
        "edge_far": __version__,
        "root": str(subject.root),
        "verdict": worst(findings),
        "profile": None if subject.match is None else subject.match.profile.name,
        "findings": [finding.as_document() for finding in findings],
        "bench": measured,
        "report": block,
    }


def _measured(
    subject: Subject, findings: list[Finding], options: argparse.Namespace, console: Console
) -> tuple[dict[str, Any], str]:
    """Return the figures, and the block to paste; where packages are broken there is a reason in place of figures."""
    from edge_far.doctor.bench import bench, report

    board = next(finding.read for finding in findings if finding.name == "board")
    seconds = options.bench_seconds or BENCH_SECONDS
    measured = bench(subject, seconds, options.bundle, console, options.keep_calibration)
    return measured, report(findings, measured, board)


def exit_code(document: dict[str, Any]) -> int:
    """Return the code of the worst finding."""
    return EXIT_CODES[document["verdict"]]


def render(document: dict[str, Any]) -> str:
    """Return the findings as a table for people, then what to do, the worst first."""
    findings = document["findings"]
    width = max(len(finding["name"]) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        told = finding["read"] + (f" ({finding['why']})" if finding["why"] and finding["verdict"] != "ok" else "")
        head = f"{finding['verdict']:<5} {finding['name']:<{width}}  "
        lines += textwrap.wrap(told, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    todo = [
        finding
        for verdict in ("bad", "warn", "note")
        for finding in findings
        if finding["verdict"] == verdict and finding["todo"]
    ]
    lines += ["", SUMMARIES[document["verdict"]]]
    told_lines: set[str] = set()
    for finding in todo:
        if finding["todo"] not in told_lines:
            names = [other["name"] for other in todo if other["todo"] == finding["todo"]]
            lines += [f"  {', '.join(names)}:", f"    {finding['todo']}"]
            told_lines.add(finding["todo"])
    if document["report"] is not None:
        lines += ["", "For a report:", document["report"]]
    return "\n".join(lines)
