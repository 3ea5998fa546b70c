"""A device in the field with a desk, which takes orders as the ClientApp lays them down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from edge_far.bundles.arrays import read_learners
from edge_far.bundles.bundle import open_bundle
from edge_far.console import Console
from edge_far.daemon.context import Places
from edge_far.fleet.board.worker import Worker
from edge_far.fleet.desk import Desk
from edge_far.fleet.terms import Answer, Order
from tests.daemon.field import PROFILE, Field, environment


class Board(Field):
    """One device below `root`."""

    def __init__(self, root: Path, bundle: Path) -> None:
        super().__init__(root, bundle)
        self.desk = Desk(root / "desk")
        self.desk.root.mkdir()
        self.learners = read_learners(bundle / "learners.safetensors")

    def know(self, count: int, **how: int | bool) -> None:
        """Let the daemon take up examples without training on them."""
        self.feed(count, **how)  # type: ignore[arg-type]
        self.profile.write_text(PROFILE.replace("min_new_examples: 10", "min_new_examples: 100000"))
        self.once(status=75)
        self.profile.write_text(PROFILE)

    def order(self, **changes: object) -> Order:
        """Return an order for this device's bundle."""
        asked = {"kind": "train", "bundle": open_bundle(self.bundle).fingerprint, "round": 1, "wait_s": 120.0}
        return Order.of({**asked, **changes})

    def place(self, learners: dict[str, np.ndarray] | None = None, **changes: object) -> str:
        """Lay an order down and return its id."""
        return self.desk.place(self.order(**changes), learners or self.learners)

    def work_here(self) -> Answer | None:
        """Let a worker in this process look once."""
        places = Places(self.state, self.bundle, str(self.profile), None, self.sensors)
        return Worker(places, self.desk, Console(quiet=True), lambda: False).look()

    def work_command(self) -> list[str]:
        """Return the command line of `edge-far fleet work`."""
        command = [sys.executable, "-m", "edge_far.cli", "fleet", "work", "--json"]
        command += ["--state", str(self.state), "--desk", str(self.desk.root), "--bundle", str(self.bundle)]
        return [*command, "--profile", str(self.profile), "--sensors-root", str(self.sensors)]

    def working(self) -> subprocess.Popen[str]:
        """Start `edge-far fleet work --once`."""
        command = [*self.work_command(), "--once"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())

    def answered(self, id: str) -> tuple[Answer, dict[str, np.ndarray]]:
        """Return the answer to an order, which must be there."""
        found = self.desk.answer(id)
        assert found is not None
        return found
