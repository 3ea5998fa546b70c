"""What a cycle works with: the device's state, its settings, and whom to ask. Hardly any behaviour of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge_far.bundles.bundle import MANIFEST, Bundle, open_bundle
from edge_far.console import Console
from edge_far.daemon.new_labels import NewLabels
from edge_far.daemon.notes import Notes
from edge_far.daemon.notify import Notifier
from edge_far.daemon.releases import Releases
from edge_far.daemon.state import LOCK_WAIT_S, StateDirectory
from edge_far.daemon.store.backup import open_or_replace
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.journal import Journal
from edge_far.device.board.sensors import Sensors
from edge_far.errors import EdgeFarError
from edge_far.profile.document import Profile, load_profile
from edge_far.storage import sha256_of
from edge_far.texts.labels import LabelForm, label_form
from edge_far.texts.places import OpenNames, is_place

__all__ = ["Context", "Places", "opened_context"]


@dataclass(frozen=True)
class Places:
    """Where a device's daemon finds what it works with; without `spool` it is the state directory's own."""

    state: Path
    bundle: Path
    profile: str
    spool: Path | None = None
    sensors_root: Path = Path("/")


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


@contextmanager
def opened_context(
    places: Places, console: Console, *, lock_wait_s: float = LOCK_WAIT_S, before: Context | None = None
) -> Iterator[tuple[Context, int]]:
    """Open state, store and bundle under the daemon's lock; yield them with the lock's descriptor, for children.

    With the context of an earlier look, `before`, its profile is used again, and its bundle if that is still there.
    Raises Deferred (75) when somebody else is at work for longer than `lock_wait_s`; EdgeFarError, noted for `status`.
    """
    os.umask(0o077)
    state = StateDirectory(places.state)
    state.prepare()
    with ExitStack() as stack:
        lock = stack.enter_context(state.lock(lock_wait_s))
        stack.callback(state.give_to_owner)
        state.clear_leftovers()
        notes = Notes(state.notes)
        try:
            profile: Profile = before.profile if before else load_profile(places.profile)
            bundle = _same_bundle(places.bundle, before) or open_bundle(places.bundle, profile.security)
            spool, share = places.spool or state.spool, profile.adaptation.held_out_percent / 100
            store, recovered = open_or_replace(state.store, spool, held_out_share=share)
        except EdgeFarError as error:
            notes.tell_error(error)
            raise
        stack.callback(store.close)
        if recovered:
            console.warn(recovered)
            notes.tell("store", recovered, "look for a failing card; the damaged file may be deleted")
        context = Context(
            state=state,
            spool=spool,
            store=store,
            journal=Journal(store),
            releases=Releases(state.model),
            notes=notes,
            bundle=bundle,
            profile=profile,
            profile_source=places.profile,
            notifier=before.notifier if before else Notifier(),
            sensors=Sensors(places.sensors_root, disk=state.root),
        )
        yield context, lock


def _same_bundle(root: Path, before: Context | None) -> Bundle | None:
    """Return the bundle of an earlier look, None where there is none or it was replaced on the disk meanwhile."""
    with suppress(OSError, EdgeFarError):
        if before is not None and sha256_of(root / MANIFEST) == before.bundle.fingerprint:
            return before.bundle
    return None
