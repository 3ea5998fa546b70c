"""The ServerApp: rounds from where the last server stopped, each checked, averaged and kept before the next begins.

Read `main` first. A device that is away, declines or is refused costs the round nothing but its part; a round to which
nobody contributed is tried again. Flower moves the messages; what they hold is judged here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp

from edge_far.bundles.bundle import open_bundle
from edge_far.errors import EdgeFarError, Unavailable
from edge_far.fleet.exchange import Form, check_norm
from edge_far.fleet.server.central import evaluated
from edge_far.fleet.server.plan import FleetPlan
from edge_far.fleet.server.rounds import Rounds, Settings
from edge_far.fleet.server.strategies import Aggregation, Contribution, array_record
from edge_far.fleet.terms import REASONS, Answer, Order, Refused
from edge_far.fleet.traffic import bytes_of, unpacked
from edge_far.tasks.figures import figures_of

__all__ = ["app"]

POLL_S = 1.0
AGAIN_S = 10.0  # after a round without a contribution
FRUITLESS = 20  # such rounds in a row, then the server gives up
RELEASE = "query"

app = ServerApp()


@dataclass
class _Tally:
    """What became of one round's messages; bytes are those of the arrays."""

    contributions: list[Contribution] = field(default_factory=list)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds of a plan, then offer the release."""
    try:
        _Fleet(FleetPlan.of(context.run_config), grid).run()
    except EdgeFarError as error:
        _say(f"edge-far: error: {error}")
        raise SystemExit(error.exit_code) from error


class _Fleet:
    """One run of the server over one directory of rounds."""

    def __init__(self, plan: FleetPlan, grid: Grid) -> None:
        self._plan, self._grid = plan, grid
        self._bundle = open_bundle(Path(plan.bundle))
        first = self._bundle.path("learners.safetensors")
        self._rounds = Rounds(plan.directory)
        settings = Settings(self._bundle.fingerprint, plan.strategy, plan.traffic)
        found = self._rounds.open(settings, first)
        self._number, self._learners = found.round, found.learners
        self._form = Form.of(found.learners)
        self._aggregation = Aggregation(plan)
        self._aggregation.restore(found.moments)
        self._random = np.random.default_rng([plan.seed, found.round])

    def run(self) -> None:
        """Go on behind the newest finished round, to the last one; then offer what came out."""
        plan = self._plan
        _say(f"bundle {self._bundle.fingerprint[:12]}, {self._form.size:,} learners, {plan.strategy}, {plan.traffic}")
        if self._number:
            _say(f"going on behind round {self._number}")
        fruitless = 0
        while self._number < plan.rounds:
            fruitless = 0 if self._round(self._number + 1) else fruitless + 1
            if fruitless == FRUITLESS:
                _say(f"no device has contributed to {FRUITLESS} rounds in a row: giving up")
                return
            if fruitless:
                time.sleep(AGAIN_S)
        if plan.release and self._number:
            self._offer()

    # --- a round --------------------------------------------------------------------------------------------------

    def _round(self, number: int) -> bool:
        """Have one round, and keep it; False where nobody contributed, so that nothing changed."""
        plan, began_s = self._plan, time.monotonic()
        nodes = self._sampled(plan.min_nodes)
        order = plan.order("train", self._bundle.fingerprint, number)
        replies = self._asked(nodes, order, MessageType.TRAIN)
        tally = self._judged(nodes, replies, order)
        if not tally.contributions:
            _say(f"round {number}: no contribution; {_declines(tally)}")
            return False
        learners = self._aggregation.mean(number, self._learners, tally.contributions)
        self._form.check(learners, "the mean")
        record: dict[str, Any] = {
            "round": number,
            "seconds": round(time.monotonic() - began_s, 3),
            "bytes_down": tally.bytes_down,
            "bytes_up": tally.bytes_up,
            "nodes": tally.nodes,
            "central": self._measured(learners),
        }
        self._rounds.finish(number, learners, self._aggregation.kept(), record)
        self._number, self._learners = number, learners
        _say(_line(record, len(tally.contributions)))
        return True

    def _sampled(self, least: int) -> list[int]:
        """Return the devices of a round, once as many as are needed are connected."""
        told = -1
        while len(found := sorted(self._grid.get_node_ids())) < least:
            if told != len(found):
                told = len(found)
                _say(f"waiting for devices: {told} of {least} are connected")
            time.sleep(POLL_S)
        count = max(least, round(self._plan.fraction * len(found)))
        return sorted(int(node) for node in self._random.choice(np.array(found, np.uint64), count, replace=False))

    def _asked(self, nodes: list[int], order: Order, kind: str) -> list[Message]:
        """Send everybody the learners and the order; return what came back in time."""
        config = {name: value for name, value in order.document().items() if name != "kind"}
        record = RecordDict({"arrays": array_record(self._learners), "config": ConfigRecord(config)})
        messages = [Message(record, dst_node_id=node, message_type=kind) for node in nodes]
        return list(self._grid.send_and_receive(messages, timeout=self._plan.round_seconds))

    def _judged(self, nodes: list[int], replies: Iterable[Message], order: Order) -> _Tally:
        """Check every answer; what is wrong with one is noted at its node and costs only its part."""
        size = bytes_of(self._learners)
        tally = _Tally(bytes_down=size * len(nodes))
        for node in nodes:
            tally.nodes[str(node)] = {"outcome": "silent", "reason": "no answer"}
        for reply in replies:
            node = reply.metadata.src_node_id
            if reply.has_error():
                if str(node) in tally.nodes:  # else it is the SuperLink's own, of a node that went away
                    tally.nodes[str(node)] = {"outcome": "silent", "reason": f"Flower's error {reply.error.code}"}
                continue
            try:
                tally.nodes[str(node)] = self._taken(node, reply.content, order, tally)
            except Refused as refusal:
                _say(f"node {node} refused: {refusal}")
                tally.nodes[str(node)] = {"outcome": "refused", "reason": refusal.word}
        return tally

    def _taken(self, node: int, content: RecordDict, order: Order, tally: _Tally) -> dict[str, Any]:
        """Take one answer into the tally; raises Refused."""
        answer = _answer_of(content)
        if answer.outcome != "trained":
            return {"outcome": answer.outcome, "reason": answer.reason}
        sent = {name: array.numpy() for name, array in cast(ArrayRecord, content["arrays"]).items()}
        tally.bytes_up += bytes_of(sent)
        who = f"node {node}"
        change = unpacked(sent, order.traffic, self._form, who)
        norm = check_norm(change, order.most_norm, who)
        examples = answer.figures["examples"]
        tally.contributions.append(Contribution(node, change, examples))
        return {"outcome": "trained", "reason": "", "figures": {**answer.figures, "norm": round(norm, 6)}}

    def _measured(self, learners: dict[str, np.ndarray]) -> dict[str, Any] | None:
        """Return the figures on the host's own data, where there is some; a round is not lost for want of them."""
        plan = self._plan
        if not plan.eval:
            return None
        try:
            found = evaluated(self._bundle.root, learners, Path(plan.eval), Path(plan.python))
        except Unavailable as error:
            _say(f"not measured: {error}")
            return None
        return {"examples": found["examples"], "loss": found["loss"], **figures_of(found)}

    # --- the release ----------------------------------------------------------------------------------------------

    def _offer(self) -> None:
        """Publish the learners and offer them to every device that has not taken them; their gates decide."""
        if self._rounds.released_round() != self._number:
            self._rounds.publish(self._number, self._learners, self._bundle.fingerprint)
            _say(f"release of round {self._number}: {self._rounds.release}")
        known = self._rounds.offered()
        nodes = [node for node in sorted(self._grid.get_node_ids()) if str(node) not in known]
        if not nodes:
            _say("every connected device has it")
            return
        order = self._plan.order("release", self._bundle.fingerprint, self._number)
        taken = set()
        for reply in self._asked(nodes, order, RELEASE):
            if not reply.has_error() and _outcome(reply.content) == "offered":
                taken.add(str(reply.metadata.src_node_id))
        self._rounds.note_offered(taken)
        _say(f"offered to {len(taken)} of {len(nodes)} devices; each puts it through its own gate")


def _answer_of(content: RecordDict) -> Answer:
    """Return what a device said; raises Refused where it is beyond the terms."""
    try:
        said, figures = cast(ConfigRecord, content["said"]), cast(MetricRecord, content["figures"])
        return Answer.of({**dict(said), "figures": dict(figures)})
    except KeyError as error:
        raise Refused("order", f"the record {error} is missing") from error


def _outcome(content: RecordDict) -> str:
    try:
        return _answer_of(content).outcome
    except Refused:
        return "refused"


def _declines(tally: _Tally) -> str:
    return "; ".join(
        f"{node} {found['outcome']}: {REASONS.get(found['reason'], found['reason'])}"
        for node, found in tally.nodes.items()
        if found["outcome"] != "trained"
    )


def _line(record: dict[str, Any], contributed: int) -> str:
    """Return one round in one line."""
    central = record["central"]
    shown = "" if central is None else "; " + ", ".join(f"{n} {v:.4g}" for n, v in figures_of(central).items())
    left = [f"{n} {f['outcome']} ({f['reason']})" for n, f in record["nodes"].items() if f["outcome"] != "trained"]
    without = f"; without {', '.join(left)}" if left else ""
    down, up = record["bytes_down"], record["bytes_up"]
    return (
        f"round {record['round']}: {contributed} devices in {record['seconds']:.1f} s, "
        f"{down:,} bytes down, {up:,} up{shown}{without}"
    )


def _say(text: str) -> None:
    print(text, flush=True)
