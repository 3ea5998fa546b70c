"""Serve the model as an intent service: Home Assistant takes it as a conversation agent, over the Wyoming protocol.

An answer below the threshold is not recognised. --held-out chooses it at the start: the smallest at which the answers
that are taken are right as often as --target-percent says; --choose-threshold tells it and ends. Without, it is 0.5.
Needs the extra wyoming. It runs until SIGTERM or Ctrl-C, and follows new releases.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_far.commands.arguments import Number, add_columns_argument
from edge_far.console import Console
from edge_far.daemon.intake.spool import DEFAULT_SPOOL
from edge_far.errors import UsageError
from edge_far.json_file import Within
from edge_far.quoting import shown

if TYPE_CHECKING:
    from edge_far.application.model import Model
    from edge_far.bridges.threshold import Choice
    from edge_far.bridges.wyoming_service import IntentService

EXAMPLES = """examples:
  edge-far serve --wyoming --held-out eval.jsonl
  edge-far serve --choose-threshold eval.jsonl --target-percent 97
  edge-far serve --wyoming tcp://0.0.0.0:10400 --threshold 0.8 --keep-unrecognised     heard by the whole network
  edge-far serve --wyoming --model model --spool state/spool
"""

URI = "tcp://127.0.0.1:10400"
MODEL = Path("/run/edgefar/model/current")
USUAL_THRESHOLD = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far serve`."""
    parser.add_argument(
        "--wyoming", nargs="?", const=URI, metavar="URI", help=f"listen there (without an address: {URI})"
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=MODEL,
        metavar="DIR",
        help="a released model, or the link to the current one (default: %(default)s)",
    )
    parser.add_argument(
        "--spool", type=Path, default=DEFAULT_SPOOL, metavar="DIR", help="for corrections (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", action=Number, type=int, within=Within(1, 1024), metavar="N", help="(default: at most 4)"
    )
    threshold = parser.add_mutually_exclusive_group()
    threshold.add_argument(
        "--threshold",
        action=Number,
        type=float,
        within=Within(0, 1),
        metavar="P",
        help=f"the probability from which an answer is taken (default: {USUAL_THRESHOLD})",
    )
    threshold.add_argument("--held-out", type=Path, metavar="FILE", help="labelled examples to choose the threshold on")
    threshold.add_argument("--choose-threshold", type=Path, metavar="FILE", help="the same; tell it and end")
    parser.add_argument(
        "--target-percent",
        action=Number,
        type=float,
        within=Within(1, 100),
        default=95.0,
        metavar="T",
        help="of the answers that are taken, so many are to be right (default: %(default)s)",
    )
    add_columns_argument(parser)
    parser.add_argument(
        "--language", action="append", default=[], metavar="CODE", help="offered for this one; may be said again"
    )
    parser.add_argument("--sorry", metavar="TEXT", help="what is said where nothing is recognised")
    parser.add_argument(
        "--keep-unrecognised",
        action="store_true",
        help="hand such texts to the daemon without a label; 'edge-far store predictions' lists them",
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Choose the threshold, then serve until a signal; the document says what was answered."""
    from edge_far.application.model import Model
    from edge_far.bridges.extras import module_of

    if (options.wyoming is None) == (options.choose_threshold is None):
        raise UsageError("say one of --wyoming and --choose-threshold", hint="edge-far serve --wyoming")
    if options.wyoming is not None:
        module_of("wyoming", "wyoming.server")
    with _logging_to(console):
        model = Model(options.model, spool=options.spool, threads=options.threads)
        if options.choose_threshold is not None:
            choice = _choice(model, options.choose_threshold, options)
            return {**asdict(choice), "target": options.target_percent / 100, "release": model.release}
        threshold = USUAL_THRESHOLD if options.threshold is None else options.threshold
        if options.held_out is not None:
            choice = _choice(model, options.held_out, options)
            console.info(_choice_text(asdict(choice)))
            threshold = choice.threshold
        return _served(model, threshold, options, console)


def _choice(model: Model, path: Path, options: argparse.Namespace) -> Choice:
    from edge_far.bridges.threshold import choose_threshold, measured
    from edge_far.texts.data import iterate_examples

    examples = iterate_examples(path, labels=model.task.form, columns=options.columns)
    return choose_threshold(measured(model, examples), options.target_percent / 100)


def _served(model: Model, threshold: float, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from edge_far.bridges.wyoming_service import IntentService

    if not options.spool.is_dir():
        spool = shown(str(options.spool))
        console.warn(f"--spool: {spool} is no directory yet; until the daemon has made it, corrections are lost")
    keep_in = options.spool if options.keep_unrecognised else None
    service = IntentService(model, threshold, options.language, options.sorry, keep_in)
    asyncio.run(_until_signal(service, options.wyoming, console))
    return {"threshold": threshold, **asdict(service.counts)}


async def _until_signal(service: IntentService, uri: str, console: Console) -> None:
    from edge_far.bridges.wyoming_service import listening
    from edge_far.daemon.notify import Notifier

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening(service, uri):
        text = f"release {service.model.release} answers at {uri}, from a probability of {service.threshold:g}"
        console.info(text)
        Notifier(os.environ).ready(text)
        await stop.wait()


class _ToConsole(logging.Handler):
    """What the model and the service tell, a line each on stderr."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        (self._console.warn if record.levelno >= logging.WARNING else self._console.info)(record.getMessage())


@contextmanager
def _logging_to(console: Console) -> Iterator[None]:
    """Show what is logged by edge-far while the block runs."""
    logger, handler = logging.getLogger("edge_far"), _ToConsole(console)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _choice_text(document: dict[str, Any]) -> str:
    return (
        f"threshold {document['threshold']:g}: {document['accepted']:.1%} of {document['examples']} examples are "
        f"taken, and {document['accuracy']:.1%} of those are right"
    )


def render(document: dict[str, Any]) -> str:
    """Return the choice, or what was answered."""
    if "accepted" in document:
        return _choice_text(document)
    return (
        f"{document['recognised']} recognised, {document['not_recognised']} not, {document['corrected']} corrected, "
        f"{document['failed']} failed"
    )
