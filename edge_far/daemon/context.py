"""What a cycle works with: the device's state, its settings, and whom to ask. Hardly any behaviour of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_far.bundles.bundle import Bundle
from edge_far.daemon.new_labels import NewLabels
from edge_far.daemon.notes import Notes
from edge_far.daemon.notify import Notifier
from edge_far.daemon.releases import Releases
from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.journal import Journal
from edge_far.device.board.sensors import Sensors
from edge_far.profile.document import Profile
from edge_far.texts.labels import LabelForm, label_form
from edge_far.texts.places import OpenNames, is_place

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
    def new_labels(self) -> NewLabels:
        """Return the labels that this device has beside the bundle's."""
        return NewLabels(self.store, self.bundle.manifest.labels)

    @property
    def labels(self) -> LabelForm:
        """Return how labels that arrive are read: with free places in the bundle one may be unknown yet."""
        manifest = self.bundle.manifest
        if self.new_labels.allowed:
            return OpenNames(manifest.labels)
        return label_form(manifest.task.form, manifest.labels)

    @property
    def learnable(self) -> LabelForm:
        """Return how the labels that have an output are read."""
        names = [name for name in self.new_labels.names() if not is_place(name)]
        return label_form(self.bundle.manifest.task.form, names)
