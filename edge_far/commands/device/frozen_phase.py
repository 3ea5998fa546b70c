"""The phase before training where a bundle has a prefix: what the frozen blocks make of each text, computed once.

`room_for` says whether all of it may be kept, for the plan; `open_hidden` opens the cache, and `fill` computes what it
lacks. Nothing here decides a number of training: what is not kept is computed again, and is the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Prefix
from edge_far.console import Console
from edge_far.device.board.memory import release_free_memory
from edge_far.device.cache.database import RowDatabase
from edge_far.device.cache.hidden import HiddenStates, cache_bytes
from edge_far.device.engine.arena import make_arena
from edge_far.device.engine.backend import FillWidth
from edge_far.device.engine.prefix import PrefixRunner
from edge_far.device.planning.parts import fill_activations_mib
from edge_far.device.planning.plan import Plan
from edge_far.device.run.trainer import TrainData
from edge_far.errors import StorageError
from edge_far.process.privacy import cache_directory
from edge_far.profile.document import Profile

__all__ = ["cache_file", "fill", "open_hidden", "room_for"]

MIB = 1 << 20
FILE = "hidden.sqlite3"


def cache_file(options: argparse.Namespace) -> Path | None:
    """Return where hidden states are kept: --cache, or the user's or the service's cache; None where there is none."""
    directory = options.cache or cache_directory()
    return None if directory is None else directory / FILE


def room_for(data: TrainData, prefix: Prefix, profile: Profile) -> bool:
    """Say whether the activations of all texts are within what the profile lets the cache take."""
    sets = [data.train] if data.evaluation is None else [data.train, data.evaluation]
    return sum(cache_bytes(each, prefix) for each in sets) <= profile.storage.cache_mib * MIB


def open_hidden(
    bundle: Bundle, prefix: Prefix, plan: Plan, threads: int, path: Path | None, limit_mib: int, console: Console
) -> HiddenStates:
    """Return where batches get their hidden states; without a cache, and a warning, where that cannot be opened."""
    database = None
    if path is not None and limit_mib:
        try:
            database = RowDatabase(path, limit_mib * MIB)
        except StorageError as error:
            console.warn(f"{error}; activations are computed again in every step")
    activations = max(plan.parts_mib["activations"], fill_activations_mib(prefix, plan.longest, plan.fill))

    def load(width: FillWidth) -> PrefixRunner:
        make_arena(activations)
        return PrefixRunner(bundle, prefix, threads, width=width)

    return HiddenStates(prefix, load, database, f"onnxruntime {ort.__version__}", plan.fill)


def fill(data: TrainData, hidden: HiddenStates, exclusive: bool, console: Console, stop: Callable[[], None]) -> bool:
    """Compute what the cache lacks; return whether all is there now. With `exclusive` nothing else stays in it.

    Without, rows of other data go where there is no room. The prefix's memory is given back. `stop` may raise between
    two texts; what was computed before stays.
    """
    sets = [data.train] if data.evaluation is None else [data.train, data.evaluation]
    if exclusive:
        hidden.forget_others(*sets)
    stored = [hidden.fill(each, console, stop, sets).stored for each in sets]
    hidden.close_prefix()
    release_free_memory()
    return all(stored)
