"""How a fleet is: this device's desk and offer, or the finished rounds on a server."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

from edge_far.daemon.state import StateDirectory
from edge_far.errors import EdgeFarError
from edge_far.fleet.desk import Desk
from edge_far.fleet.server.rounds import Rounds
from edge_far.fleet.terms import REASONS
from edge_far.tasks.figures import FIGURES, figures_of

__all__ = ["shown", "view"]


def view(options: argparse.Namespace) -> dict[str, Any]:
    """Return the facts; raises InputMissing (66) where there is nothing to look at."""
    if options.rounds is not None:
        rounds = Rounds(options.rounds)
        return {"rounds": rounds.records(), "released": rounds.released_round()}
    desk = Desk(options.desk)
    desk.must_exist()
    state = StateDirectory(options.state)
    offered = False
    with suppress(OSError):  # another user's directory
        offered = state.offer.is_dir()
    last = None
    with suppress(EdgeFarError):
        last = desk.last_answer()
    return {
        "desk": str(desk.root),
        "order_waits": desk.has_order(),
        "last_answer": last and {"outcome": last.outcome, "reason": last.reason, "figures": dict(last.figures)},
        "offer_waits": offered,
    }


def shown(document: dict[str, Any]) -> str:
    """Return the facts for people."""
    if "rounds" in document:
        return _rounds_text(document)
    last = document["last_answer"]
    lines = [
        f"desk      {document['desk']}: {'an order waits' if document['order_waits'] else 'empty'}",
        f"last      {'no answer yet' if last is None else _answer_text(last)}",
    ]
    if document["offer_waits"]:
        lines.append("offer     of the fleet waits for the daemon's next cycle, whose gate decides")
    return "\n".join(lines)


def _answer_text(answer: dict[str, Any]) -> str:
    if answer["outcome"] == "declined":
        return f"declined: {REASONS[answer['reason']]}"
    figures = answer["figures"]
    told = [f"{figures['examples']:.0f} examples"] if "examples" in figures else []
    told += [f"{figures['seconds']:.1f} s"] if "seconds" in figures else []
    return " ".join([answer["outcome"], *([f"({', '.join(told)})"] if told else [])])


def _rounds_text(document: dict[str, Any]) -> str:
    lines = ["round  devices  seconds    bytes down      bytes up  held out"]
    for found in document["rounds"]:
        nodes = list(found["nodes"].values())
        trained = sum(node["outcome"] == "trained" for node in nodes)
        central = found["central"] or {}
        figure = next((f"{n} {FIGURES[n].shown(v)}" for n, v in figures_of(central).items()), "-")
        lines.append(
            f"{found['round']:>5}  {trained:>3}/{len(nodes):<3}  {found['seconds']:>7.1f}  "
            f"{found['bytes_down']:>12,}  {found['bytes_up']:>12,}  {figure}"
        )
    released = document["released"]
    lines.append("no release yet" if released is None else f"released after round {released}")
    return "\n".join(lines)
