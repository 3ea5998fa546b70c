"""What training asks of each board: whether a bundle fits, how, and what memory, disk, work and time it takes.

A board is its profile; nothing runs, and nothing of it need be here. What a process holds before training
(parts.RUNTIME_MIB) was measured elsewhere. Time is a measurement, so a row has seconds only where it is given a cost
model of that very machine; floating-point operations are the same on all of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edge_far.bundles.manifest import Manifest
from edge_far.device.board.memory import MIB
from edge_far.device.cache.hidden import cache_bytes, longest_rows_bytes
from edge_far.device.optimizers.registry import state_bytes
from edge_far.device.planning.parts import RUNTIME_MIB
from edge_far.device.planning.plan import Plan, Shapes, StepSeconds, make_plan
from edge_far.device.planning.work import batch_flops, graph_flops
from edge_far.errors import BudgetError
from edge_far.profile.document import Profile
from edge_far.texts.encode import Encoded

__all__ = ["Row", "Wish", "every_length", "plan_row"]

# What a run directory holds at most (device/run/checkpoint.py): two checkpoints and one that is being written, each
# learners and the optimiser's state; besides, the best learners and the result.
CHECKPOINTS, OTHER_COPIES = 3, 2
CACHED_TEXTS = 1000


@dataclass(frozen=True)
class Wish:
    """What is to be trained: the shapes, the optimiser, and the texts themselves where they are known."""

    shapes: Shapes
    optimizer: str
    texts: Encoded | None = None


@dataclass(frozen=True)
class Row:
    """One method on one board. Sizes are MiB, times seconds.

    Of a method that does not fit, `needed_mib` is the smallest budget that would do; how it would run is None.
    `step_gflop` is a batch of texts of the longest length, forward and backward, in 10^9 operations; `fill_gflop` is
    what frozen blocks compute of one such text, once; None where there are none. `cache_mib` is what that takes on
    disk, None without data; `cache_mib_1000` that of 1,000 texts of the longest length.
    """

    profile: str
    board: str
    method: str
    fits: bool
    budget_mib: int
    needed_mib: int | None
    batch_size: int
    longest: int
    micro_batch: int | None
    step_graph: str | None
    predicted_peak_mib: float | None
    optimizer: str
    trained_parameters: int
    bundle_mib: float
    run_mib: float
    cache_mib: float | None
    cache_mib_1000: float | None
    step_gflop: float
    fill_gflop: float | None
    step_seconds: float | None

    @property
    def disk_mib(self) -> float:
        """What bundle, run and, where the texts are known, the activation cache take."""
        return self.bundle_mib + self.run_mib + (self.cache_mib or 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON document."""
        rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**rounded, "disk_mib": round(self.disk_mib, 4)}


def every_length(longest: int, batch_size: int) -> Shapes:
    """Return the shapes of data of which nothing is known: all padded lengths up to the longest."""
    return Shapes(tuple(range(8, longest + 1, 8)), batch_size)


def plan_row(manifest: Manifest, method: str, profile: Profile, wish: Wish, seconds: StepSeconds | None = None) -> Row:
    """Return what a board makes of a bundle; `seconds` is a cost model of that board, `method` what tables call it.

    The prefix is counted with a text at a time: a run with room computes several, and takes more.
    """
    prefix, shapes = manifest.portable.prefix, wish.shapes
    cache = None if prefix is None or wish.texts is None else cache_bytes(wish.texts, prefix) / MIB
    kept = cache is None or cache <= profile.storage.cache_mib
    budget, plan, needed = profile.memory.budget_mib, None, None
    try:
        plan = make_plan(manifest, shapes, budget, RUNTIME_MIB, optimizer=wish.optimizer, seconds=seconds, cached=kept)
    except BudgetError as error:
        needed = error.needed_mib
    longest = max(shapes.lengths)
    trained = 4 * manifest.trained_parameters
    state = state_bytes(wish.optimizer, (parameter.shape for parameter in manifest.portable.parameters))
    thousand = None if prefix is None else longest_rows_bytes(CACHED_TEXTS, longest, prefix) / MIB
    return Row(
        profile=profile.name,
        board=profile.board.description,
        method=method,
        fits=plan is not None,
        budget_mib=budget,
        needed_mib=needed,
        batch_size=shapes.batch_size,
        longest=longest,
        micro_batch=None if plan is None else plan.micro_batch,
        step_graph=None if plan is None else plan.variant_for(longest),
        predicted_peak_mib=None if plan is None else plan.predicted_peak_mib,
        optimizer=wish.optimizer,
        trained_parameters=manifest.trained_parameters,
        bundle_mib=sum(file.bytes for file in manifest.files.values()) / MIB,
        run_mib=(CHECKPOINTS * (trained + state) + OTHER_COPIES * trained) / MIB,
        cache_mib=cache if kept else 0.0,
        cache_mib_1000=thousand,
        step_gflop=_step_flops(manifest, plan, shapes.batch_size, longest) / 1e9,
        fill_gflop=None if prefix is None else graph_flops(prefix.graph.costs, 1, longest) / 1e9,
        step_seconds=None if plan is None or plan.step_seconds is None else plan.step_seconds[longest],
    )


def _step_flops(manifest: Manifest, plan: Plan | None, batch: int, longest: int) -> float:
    """Return the operations of a batch by the graph that the plan takes; by the plain one where nothing fits."""
    steps = {step.name: step for step in manifest.portable.steps}
    if plan is None:
        return batch_flops(manifest.portable.steps[0].costs, batch, batch, longest)
    return batch_flops(steps[plan.variant_for(longest)].costs, batch, plan.micro_batch, longest)
