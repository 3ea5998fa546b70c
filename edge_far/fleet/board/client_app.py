"""The ClientApp, which a device's SuperNode starts for each message: Flower's records to the desk, and back.

    node-config: bundle="/opt/edge-far/bundle" desk="/var/spool/edge-far-fleet" keep="/var/lib/edge-far-fleet"

What leaves the device is built here, in `_reply`, of three records: arrays, numbers of terms.FIGURES, two words.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from edge_far.bundles.arrays import read_learners
from edge_far.fleet.desk import DEFAULT_DESK, Desk
from edge_far.fleet.exchange import Arrays, Form, change_between, check_norm, clipped
from edge_far.fleet.terms import Answer, Order, Refused, other_bundle
from edge_far.fleet.traffic import Residual, packed, unpacked

__all__ = ["app"]

POLL_S = 0.2
TAKEN_S = 60.0  # a path unit starts a worker within a second; a busy board takes longer to start Python

app = ClientApp()


@dataclass(frozen=True)
class _Node:
    """What this SuperNode's owner has set."""

    bundle: Path
    desk: Desk
    keep: Path

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> _Node:
        return cls(
            Path(str(settings.get("bundle", "/opt/edge-far/bundle"))),
            Desk(Path(str(settings.get("desk", DEFAULT_DESK)))),
            Path(str(settings.get("keep", "/var/lib/edge-far-fleet"))),
        )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Take part in a round of training, or decline it with a word."""
    return _reply(message, *_said(message, context, "train"))


@app.query()
def take_release(message: Message, context: Context) -> Message:
    """Offer what the fleet releases to the device's own gate."""
    return _reply(message, *_said(message, context, "release"))


def _said(message: Message, context: Context, kind: str) -> tuple[Answer, Arrays]:
    """Return what to answer; whatever goes wrong becomes a word, and its sentence stays in this node's log."""
    try:
        node = _Node.of(context.node_config)
        order = Order.of({**dict(message.content["config"]), "kind": kind})
        received = {name: array.numpy() for name, array in message.content["arrays"].items()}
        return _done(node, order, received)
    except Refused as refusal:
        print(f"declined ({refusal.word}): {refusal}", flush=True)
        return Answer.declined(refusal.word), {}
    except Exception as error:  # which Flower would send to the server, with its text
        print(f"declined (failed): {error!r}", flush=True)
        return Answer.declined("failed"), {}


def _done(node: _Node, order: Order, received: Arrays) -> tuple[Answer, Arrays]:
    fingerprint = hashlib.sha256((node.bundle / "manifest.json").read_bytes()).hexdigest()
    if fingerprint != order.bundle:
        raise Refused("bundle", other_bundle(fingerprint, order.bundle))
    form = Form.of(read_learners(node.bundle / "learners.safetensors"))
    form.check(received, "the server")
    answer, learners = _awaited(node.desk, order, received)
    if answer.outcome != "trained":
        return answer, {}
    form.check(learners, "the trainer")
    change, cut = clipped(change_between(received, learners), order.clip_norm)
    norm = check_norm(change, order.most_norm, "the trainer")
    figures = {**answer.figures, "norm": norm, "clipped": float(cut)}
    return replace(answer, figures=figures), _packed(node, order, form, change)


def _packed(node: _Node, order: Order, form: Form, change: dict[str, np.ndarray]) -> Arrays:
    """Return the arrays that travel; in 8 bits what earlier rounds have rounded away goes along."""
    if order.traffic == "float32":
        return packed(change, order.traffic)
    residual = Residual.in_directory(node.keep, order.bundle, form)
    rest = residual.read()
    wanted = {name: array + rest[name] for name, array in change.items()}
    sent = packed(wanted, order.traffic)
    residual.write(wanted, unpacked(sent, order.traffic, form, "this device"))
    return sent


def _awaited(desk: Desk, order: Order, received: Arrays) -> tuple[Answer, dict[str, np.ndarray]]:
    """Lay the order on the desk and wait for its answer, no longer than the server does."""
    desk.must_exist()
    id = desk.place(order, received)
    began_s = time.monotonic()
    while (waited_s := time.monotonic() - began_s) < order.wait_s:
        found = desk.answer(id)
        if found is not None:
            return found
        if waited_s > TAKEN_S and not desk.is_taken(id):
            desk.withdraw(id)
            raise Refused("away", f"the order was not taken within {TAKEN_S:g} s")
        time.sleep(POLL_S)
    desk.withdraw(id)
    raise Refused("time", f"no answer within {order.wait_s:g} s")


def _reply(message: Message, answer: Answer, arrays: Arrays) -> Message:
    """Return the message that leaves this device: arrays, numbers, and two words of the terms."""
    checked = Answer.of({"outcome": answer.outcome, "reason": answer.reason, "figures": dict(answer.figures)})
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()}),
            "figures": MetricRecord({name: float(value) for name, value in checked.figures.items()}),
            "said": ConfigRecord({"outcome": checked.outcome, "reason": checked.reason}),
        }
    )
    return Message(content, reply_to=message)
