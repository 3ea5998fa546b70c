"""One state directory as a power cut left it: is everything there that must be, and does the next cycle succeed?"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from edge_far.bundles.bundle import Bundle
from edge_far.daemon.intake.ingest import Ingestion
from edge_far.daemon.releases import Releases
from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store.backup import open_or_replace
from edge_far.errors import EdgeFarError
from tests.daemon.disk.disk_model import Crash, after_power_cut
from tests.daemon.disk.disk_operations import Mark, Operation
from tests.daemon.field import Field
from tests.daemon.invariants import Ledger, current_problem, examples_in, store_problem

__all__ = ["Expected", "expected_at", "problem_after", "problem_of_next_cycle"]


@dataclass
class Expected:
    """What the workload has said by some moment; `current`: what may be current (empty: any release, or none)."""

    ledger: Ledger = field(default_factory=Ledger)
    current: set[str] = field(default_factory=set)
    damaged: bool = False


def expected_at(operations: Sequence[Operation], cut: int) -> Expected:
    """Return what must hold when the power fails after the first `cut` operations of a workload (disk_workload.py)."""
    expected = Expected()
    last: str | None = None
    for operation in operations[:cut]:
        if isinstance(operation, Mark):
            document = operation.document
            if "hand" in document:
                expected.ledger.hand((text, label) for text, label in document["hand"])
            elif "acknowledge" in document:
                expected.ledger.acknowledge()
            elif "damage" in document:
                expected.damaged = True
            else:
                last, expected.damaged = document["current"], False
    later = (o.document["current"] for o in operations[cut:] if isinstance(o, Mark) and "current" in o.document)
    if last is not None:
        expected.current = {last, next(later, last)}
    return expected


def problem_after(
    operations: Sequence[Operation],
    cut: int,
    crash: Crash,
    seed: int,
    root: Path,
    bundle: Bundle,
) -> str | None:
    """Make the disk after a power cut below `root`/state, recover it as the daemon does, and return what is wrong."""
    shutil.rmtree(root / "state", ignore_errors=True)
    (root / "state").mkdir(parents=True)
    after_power_cut(operations, cut, crash, random.Random(seed)).write_to(root / "state")
    expected = expected_at(operations, cut)
    try:
        return _recover(StateDirectory(root / "state"), expected, bundle)
    except (EdgeFarError, OSError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"


def _recover(state: StateDirectory, expected: Expected, bundle: Bundle) -> str | None:
    state.prepare()
    state.clear_leftovers()
    store, note = open_or_replace(state.store, state.spool)
    with closing(store):
        if note and not expected.damaged:
            return note
        if problems := Ingestion(state.spool, store, labels=bundle.manifest.labels).run().problems:
            return "; ".join(problems)
        if store.counts().quarantined:
            return f"in quarantine: {store.quarantined(1)}"
    if problem := store_problem(state.root) or expected.ledger.problem(examples_in(state.root)):
        return problem
    releases = Releases(state.model)
    current = releases.current_id()
    if current is None:
        return "no release is current any more" if expected.current else None
    if expected.current and current not in expected.current:
        return f"the current release is {current}, not {' or '.join(sorted(expected.current))}"
    return current_problem(state.root, load=False)


def problem_of_next_cycle(field: Field) -> str | None:
    """Run the daemon on a recovered state until a cycle ends, and return what is wrong."""
    field.feed(400, seed=99, prefix="next ")  # enough for the gate, however early the power failed
    document = field.once()
    if document["cycle"]["outcome"] not in ("released", "rejected"):
        return f"the next cycle: {document['cycle']['outcome']}, {document['cycle']['details'].get('reason')}"
    if document["cycle"]["details"].get("set_aside"):
        return "examples were set aside"
    return store_problem(field.state) or current_problem(field.state)
