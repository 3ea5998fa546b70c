"""Flower's strategies by name, with our mean under those that average.

A strategy here sees answers that were checked and decoded: learners in float64 by name, and how many examples they
are worth. Refuses to know what was refused, and the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedProx,
    FedTrimmedAvg,
    Strategy,
)

from edge_far.fleet.average import weighted_mean
from edge_far.fleet.exchange import Arrays
from edge_far.fleet.server.plan import FleetPlan

__all__ = ["EXAMPLES", "Aggregation", "Contribution", "array_record"]

EXAMPLES = "examples"
ARRAYS, FIGURES = "arrays", "figures"


class ExactFedAvg(FedAvg):
    """FedAvg whose mean is ours: float64 in the order of the answers, rounded once."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean of the learners, weighed by examples."""
        contents = [reply.content for reply in replies]
        if not contents:
            return None, None
        learners = [{n: a.numpy() for n, a in cast(ArrayRecord, c[ARRAYS]).items()} for c in contents]
        weights = [float(cast(float, cast(MetricRecord, c[FIGURES])[EXAMPLES])) for c in contents]
        return array_record(weighted_mean(learners, weights)), None


class ExactFedProx(FedProx, ExactFedAvg):
    """Flower's FedProx over our mean; the device adds the proximal term (edge-far train --proximal-mu)."""


class ExactFedAdam(FedAdam, ExactFedAvg):
    """Flower's FedAdam over our mean."""


@dataclass(frozen=True)
class Contribution:
    """One device's checked answer of a round: its learners in float64, and the examples behind them."""

    node: int
    learners: Arrays
    examples: float


class Aggregation:
    """The strategy of a plan, and what it keeps from one round to the next."""

    def __init__(self, plan: FleetPlan) -> None:
        self._plan = plan
        common: dict[str, Any] = {"min_train_nodes": 1, "min_available_nodes": 1, "weighted_by_key": EXAMPLES}
        inner: FedAvg
        if plan.strategy == "fedprox":
            inner = ExactFedProx(**common, proximal_mu=plan.proximal_mu)
        elif plan.strategy == "fedadam":
            inner = ExactFedAdam(**common, eta=plan.server_rate)
        elif plan.strategy == "trimmed":
            inner = FedTrimmedAvg(**common, beta=plan.trim)
        else:
            inner = ExactFedAvg(**common)
        self._inner = inner

    def restore(self, moments: Arrays) -> None:
        """Take up what was kept (`kept`) before a restart."""
        if isinstance(self._inner, FedAdam) and moments:
            self._inner.m_t = {n.removeprefix("m."): a for n, a in moments.items() if n.startswith("m.")}
            self._inner.v_t = {n.removeprefix("v."): a for n, a in moments.items() if n.startswith("v.")}

    def kept(self) -> dict[str, np.ndarray]:
        """Return what a restart needs beside the learners, as float32."""
        if not isinstance(self._inner, FedAdam):
            return {}
        found = [("m", self._inner.m_t or {}), ("v", self._inner.v_t or {})]
        return {f"{kind}.{n}": a.astype(np.float32) for kind, arrays in found for n, a in arrays.items()}

    def mean(self, number: int, before: Arrays, contributions: Sequence[Contribution]) -> dict[str, np.ndarray]:
        """Return the learners after a round, float32, of at least one contribution; the order of nodes decides bits."""
        ordered = sorted(contributions, key=lambda found: found.node)
        strategy: Strategy = self._inner
        if isinstance(self._inner, FedAdam):
            self._inner.current_arrays = {name: array.astype(np.float64) for name, array in before.items()}
        if self._plan.privacy_noise:
            # Every device counts alike: else one that claims many examples moves the mean by more than the clip.
            ordered = [Contribution(found.node, _not_at(before, found.learners), 1.0) for found in ordered]
            strategy = DifferentialPrivacyServerSideFixedClipping(
                self._inner, self._plan.privacy_noise, self._plan.clip_norm, len(ordered)
            )
            strategy.current_arrays = array_record(before)
        arrays, _ = strategy.aggregate_train(number, [_as_reply(found) for found in ordered])
        if arrays is None:
            raise RuntimeError("the strategy returned no arrays")
        return {name: array.numpy().astype(np.float32) for name, array in arrays.items()}


def array_record(arrays: Arrays) -> ArrayRecord:
    """Return arrays as Flower's record."""
    return ArrayRecord({name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()})


def _not_at(before: Arrays, learners: Arrays) -> Arrays:
    """Return learners of which at least one number moved, by less than float32 can say: Flower divides by the norm."""
    if not all(np.array_equal(before[name], learners[name]) for name in before):
        return learners
    return {name: np.nextafter(array, np.inf) if name == min(before) else array for name, array in learners.items()}


def _as_reply(found: Contribution) -> Message:
    """Return a contribution as the message that Flower's strategies read."""
    asked = Message(RecordDict({"config": ConfigRecord({})}), dst_node_id=found.node, message_type="train")
    content = RecordDict(
        {ARRAYS: array_record(found.learners), FIGURES: MetricRecord({EXAMPLES: float(found.examples)})}
    )
    return Message(content, reply_to=asked)
