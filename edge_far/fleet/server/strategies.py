"""A plan's strategy: our mean, alone or under Flower's FedAdam; Flower's trimmed mean and noise.

A strategy here sees answers that were checked and decoded: changes by name, and how many examples they are worth.
Refuses to know what was refused, and the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedTrimmedAvg,
    Strategy,
)

from edge_far.fleet.average import weighted_mean
from edge_far.fleet.exchange import Arrays, moved
from edge_far.fleet.server.plan import FleetPlan

__all__ = ["EXAMPLES", "Aggregation", "Contribution", "array_record"]

EXAMPLES = "examples"
ARRAYS, FIGURES = "arrays", "figures"


@dataclass(frozen=True)
class Contribution:
    """One device's checked answer of a round: its learners' change, float32, and the examples behind it."""

    node: int
    change: Arrays
    examples: float


class Aggregation:
    """The strategy of a plan, and what it keeps from one round to the next."""

    def __init__(self, plan: FleetPlan) -> None:
        self._plan = plan
        common: dict[str, Any] = {"min_train_nodes": 1, "min_available_nodes": 1, "weighted_by_key": EXAMPLES}
        # FedProx differs from FedAvg on the device alone (edge-far train --proximal-mu).
        self._inner: FedAvg | None = None
        if plan.strategy == "fedadam":
            self._inner = FedAdam(**common, eta=plan.server_rate)
        elif plan.strategy == "trimmed":
            self._inner = FedTrimmedAvg(**common, beta=plan.trim)
        elif plan.privacy_noise:
            self._inner = FedAvg(**common)

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
        if self._inner is None or isinstance(self._inner, FedAdam):
            mean = weighted_mean(before, [found.change for found in ordered], [found.examples for found in ordered])
            return mean if self._inner is None else self._adam(number, before, mean)
        learners = [moved(before, found.change) for found in ordered]
        if not self._plan.privacy_noise:
            return self._of_flower(self._inner, number, learners)
        noisy = DifferentialPrivacyServerSideFixedClipping(
            self._inner, self._plan.privacy_noise, self._plan.clip_norm, len(ordered)
        )
        noisy.current_arrays = array_record(before)
        return self._of_flower(noisy, number, [_not_at(before, one) for one in learners])

    def _adam(self, number: int, before: Arrays, mean: Arrays) -> dict[str, np.ndarray]:
        """Return what Flower's FedAdam makes of the mean."""
        inner = cast(FedAdam, self._inner)
        inner.current_arrays = {name: array.astype(np.float64) for name, array in before.items()}
        return self._of_flower(inner, number, [{name: array.astype(np.float64) for name, array in mean.items()}])

    def _of_flower(self, strategy: Strategy, number: int, learners: Sequence[Arrays]) -> dict[str, np.ndarray]:
        """Return what a strategy of Flower's makes of learners in float64, each of which counts alike.

        They do in the trimmed mean, and must with noise: else a device that claims many examples moves the mean by
        more than the clip.
        """
        arrays, _ = strategy.aggregate_train(number, [_as_reply(node, one) for node, one in enumerate(learners, 1)])
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


def _as_reply(node: int, learners: Arrays) -> Message:
    """Return learners as the message that Flower's strategies read."""
    asked = Message(RecordDict({"config": ConfigRecord({})}), dst_node_id=node, message_type="train")
    content = RecordDict({ARRAYS: array_record(learners), FIGURES: MetricRecord({EXAMPLES: 1.0})})
    return Message(content, reply_to=asked)
