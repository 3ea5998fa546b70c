"""Serves this device's desk: `edge-far fleet work`."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

from edge_far.commands.service_places import places_of
from edge_far.console import Console
from edge_far.errors import EdgeFarError
from edge_far.fleet.board.worker import Worker
from edge_far.fleet.desk import Desk
from edge_far.process.termination import Signals

__all__ = ["work"]

LOOK_S = 1.0
AFTER_FAILURE_S = 30.0


def work(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Look at the desk once, or until asked to stop; the document holds the answers.

    What is wrong with bundle, profile, state or desk is raised before the first look.
    """
    places = places_of(options)
    desk = Desk(options.desk)
    desk.must_exist()
    answers = []
    with Signals() as signals:
        worker = Worker(places, desk, console, lambda: signals.stop)
        worker.check()
        while not signals.stop:
            try:
                answer = worker.look()
            except EdgeFarError as error:
                if options.once or signals.stop:
                    raise
                console.warn(str(error))
                signals.sleep(AFTER_FAILURE_S)
                continue
            if answer is not None:
                answers.append({**asdict(answer), "answered_s": round(time.time())})
                console.info(f"answered: {answer.outcome} {answer.reason}".rstrip())
            if options.once:
                break
            signals.sleep(LOOK_S)
    return {"answers": answers}
