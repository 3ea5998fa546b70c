"""What a cycle works with: the device's state, its settings, and whom to ask. Hardly any behaviour of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_far.bundles.bundle import Bundle
from edge_far.daemon.notes import Notes
from edge_far.daemon.notify import Notifier
from edge_far.daemon.releases import Releases
from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.journal import Journal
from edge_far.device.board.sensors import Sensors
from edge_far.profile.document import Profile
from edge_far.texts.labels import LabelForm, label_form

__all__ = ["Context"]


@dataclass
class Context:
    """One device's daemon; `profile` may be replaced between two ticks, by one loaded from `profile_source`.

    `stop` says whether the daemon was asked to end; `tick` is called often while it works; `changed` after each
    change that `status` should tell.
    """

    state: StateDirectory
    spool: Path
    store: Store
    journal: Journal
    releases: Releases
    notes: Notes
    bundle: Bundle
    profile: Profile
    profile_source: str
    notifier: Notifier
    sensors: Sensors
    stop: Callable[[], bool] = lambda: False
    tick: Callable[[], None] = lambda: None
    changed: Callable[[], None] = lambda: None
    local_time: Callable[[], time.struct_time] = field(default=time.localtime)

    @property
    def labels(self) -> LabelForm:
        """Return how this model's labels are read."""
        manifest = self.bundle.manifest
        return label_form(manifest.task.form, manifest.labels)
