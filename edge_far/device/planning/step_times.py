"""Predicts the time of a step on a calibrated machine: the bundle's work times the machine's seconds for it.

    seconds(graph, batch, sequence) = sum of count x (work x seconds per work at that size + seconds of a node)

The seconds per work of a kernel lie on a line between measured sizes (in logarithms) and stay the same beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edge_far.bundles.manifest import Manifest, OperatorCost
from edge_far.device.engine.dropout import mask_shape
from edge_far.device.optimizers.registry import DEFAULT_OPTIMIZER
from edge_far.device.planning.machine_speed import Calibration
from edge_far.device.planning.parts import value_at

__all__ = ["StepTimes"]


class StepTimes:
    """A bundle on a machine (plan.StepSeconds)."""

    def __init__(
        self, manifest: Manifest, calibration: Calibration, *, dropout: bool, optimizer: str = DEFAULT_OPTIMIZER
    ) -> None:
        self.calibration = calibration
        self._portable = manifest.portable
        self._masks = manifest.portable.masks if dropout else ()
        self._costs = {step.name: step.costs for step in manifest.portable.steps}
        self._speeds = {kernel: _Speed(points) for kernel, points in calibration.kernels.items()}
        self._speeds_beside = {kernel: _Speed(points) for kernel, points in calibration.kernels_beside.items()}
        self._known: dict[tuple[str, int, int], float] = {}
        self.update = manifest.trained_parameters * calibration.parameter_seconds[optimizer]

    def micro_batch(self, variant: str, rows: int, length: int) -> float:
        """Return the seconds of one run of a step graph, its dropout masks included."""
        key = (variant, rows, length)
        if key not in self._known:
            drawn = sum(math.prod(mask_shape(mask, rows, length)) for mask in self._masks)
            graph = self._graph(self._costs[variant], rows, length, self._speeds)
            self._known[key] = graph + drawn * self.calibration.mask_byte_seconds
        return self._known[key]

    def evaluation(self, rows: int, length: int) -> float:
        """Return the seconds of one run of the inference graph."""
        key = ("infer", rows, length)
        if key not in self._known:
            self._known[key] = self._graph(self._portable.infer.costs, rows, length, self._speeds)
        return self._known[key]

    def prefix(self, tokens: int, threads: int = 1, texts: int = 1) -> float:
        """Return the seconds that a run of some texts of one length takes the prefix, of so many side by side.

        0 where the bundle has none.
        """
        key = (f"prefix beside {threads}", texts, tokens)
        prefix = self._portable.prefix
        if prefix is not None and key not in self._known:
            # Where nothing was measured side by side, as much time as with all threads on each run.
            beside = threads > 1 and bool(self._speeds_beside)
            speeds, share = (self._speeds_beside, threads) if beside else (self._speeds, 1)
            self._known[key] = self._graph(prefix.graph.costs, texts, tokens, speeds) / share
        return self._known.get(key, 0.0)

    def _graph(self, costs: Sequence[OperatorCost], rows: int, length: int, speeds: Mapping[str, _Speed]) -> float:
        total = 0.0
        for cost in costs:
            total += cost.count * self.calibration.node_seconds
            if cost.work:
                work, size = value_at(cost.work, rows, length), value_at(cost.size, rows, length)
                total += cost.count * speeds[cost.kernel].seconds(work, size)
        return total


class _Speed:
    """The measured speed of one kernel."""

    def __init__(self, points: Sequence[tuple[float, float, float]]) -> None:
        by_size: dict[float, list[float]] = {}
        for size, work, seconds in points:
            by_size.setdefault(math.log(size), []).append(math.log(seconds / work))
        self._sizes = np.array(sorted(by_size))
        self._per_work = np.array([float(np.mean(by_size[size])) for size in self._sizes])

    def seconds(self, work: float, size: float) -> float:
        """Return the time of one operator."""
        return work * math.exp(float(np.interp(math.log(max(size, 1.0)), self._sizes, self._per_work)))
