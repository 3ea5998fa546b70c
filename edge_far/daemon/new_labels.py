"""Labels that the device learnt itself: which place of the bundle each took, and what waits for one.

An example may have a label that nobody knows. It waits until there are enough of its kind; then the label takes a place
that the bundle keeps free, for good. A place is in the store's database, so it is there after a restart, a rollback,
or in the second copy. A bundle that has the label itself needs no place for it; one with fewer places lets the last
ones wait again. Changes belong inside `with store.transaction():`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_far.daemon.store.examples import Source, Store
from edge_far.errors import ConfigError, DataError
from edge_far.json_file import Damaged
from edge_far.quoting import quoted
from edge_far.texts.data import Example
from edge_far.texts.places import LABELS_FILE, UNFIT_LABEL, fits_a_label, free_places, is_place, read_labels

__all__ = ["NewLabels", "Tally", "places_in"]


@dataclass(frozen=True)
class Tally:
    """A label, how many examples in use it has, and how many of them train."""

    label: str
    examples: int
    training: int


def places_in(release: Path, known: Sequence[str]) -> dict[str, str]:
    """Return the place of each label that a release has beside a bundle's; none where it cannot be told."""
    try:
        labels = read_labels(release / LABELS_FILE)
    except (OSError, Damaged):
        return {}
    pairs = zip(labels, known, strict=False)
    return {label: place for label, place in pairs if is_place(place) and not is_place(label)}


class NewLabels:
    """The device's labels beside those of a bundle, `known` being the bundle's, free places among them."""

    def __init__(self, store: Store, known: Sequence[str]) -> None:
        self._store = store
        self._database = store.database
        self._known = tuple(known)

    @property
    def allowed(self) -> bool:
        """Say whether the bundle has places at all."""
        return bool(free_places(self._known))

    def taken(self) -> dict[str, str]:
        """Return the place of each label that has one in this bundle."""
        rows = self._database.rows("SELECT name, place FROM new_labels ORDER BY taken_s, name")
        return {name: place for name, place in rows if place in self._known and name not in self._known}

    def names(self) -> tuple[str, ...]:
        """Return the label of each output, a free place's name where there is none."""
        by_place = {place: name for name, place in self.taken().items()}
        return tuple(by_place.get(label, label) for label in self._known)

    def waiting(self) -> list[Tally]:
        """Return the labels of examples that have no output, the most frequent first."""
        known = set(self.names())
        return [tally for tally in self._tallies() if tally.label not in known]

    def take(self, needed: int, before: Mapping[str, str] | None = None) -> list[str]:
        """Give places to the labels that have `needed` examples; return which, the most frequent first.

        `before` is where labels were in the current release: a place is found again, should the store have lost it.
        """
        names, taken = self.names(), []
        free = [names[number] for number in free_places(names)]
        for waiting in self.waiting():
            if waiting.examples < needed or not waiting.training or not free:
                continue
            place = (before or {}).get(waiting.label, free[0])
            place = place if place in free else free[0]
            free.remove(place)
            self._database.run("DELETE FROM new_labels WHERE place = ?", (place,))  # another bundle's
            self._database.run(
                "INSERT OR REPLACE INTO new_labels (name, place, taken_s) VALUES (?, ?, ?)",
                (waiting.label, place, self._store.now_s()),
            )
            taken.append(waiting.label)
        return taken

    # --- what people ask for ----------------------------------------------------------------------------------------

    def rename(self, old: str, new: str) -> int:
        """Call a label of this device by another name, in its place and in its examples; return how many.

        Raises DataError for one that is not the device's, ConfigError for a name that is used.
        """
        self._must_be_ours(old)
        if is_place(new):
            raise ConfigError(f"{quoted(new)} is the name of a place", hint="choose another name")
        if not fits_a_label(new):
            raise ConfigError(f"the label {quoted(new)} {UNFIT_LABEL}", hint="choose another name")
        if new in self.names() or self._waits(new) or not new.strip():
            raise ConfigError(f"the label {quoted(new)} is there already", hint="edge-far labels merge OLD NEW")
        self._database.run("UPDATE new_labels SET name = ? WHERE name = ?", (new, old))
        return self._relabel(old, new)

    def merge(self, old: str, into: str) -> int:
        """Let a label's examples have another label, and free its place; return how many examples."""
        self._must_be_ours(old)
        if old == into or is_place(into):
            raise ConfigError(f"{quoted(into)} is no other label", hint="name one of 'edge-far labels list'")
        if into not in self.names() and not self._waits(into):
            raise DataError(f"unknown label {quoted(into)}", hint="edge-far labels rename OLD NEW makes a new one")
        self._database.run("DELETE FROM new_labels WHERE name = ?", (old,))
        return self._relabel(old, into)

    def forget(self, label: str) -> int:
        """Remove a label's examples, and free its place; return how many examples."""
        self._must_be_ours(label)
        self._database.run("DELETE FROM new_labels WHERE name = ?", (label,))
        return self._database.run("DELETE FROM examples WHERE label = ?", (label,))

    def document(self) -> dict[str, Any]:
        """Return what people and programs are told."""
        counts = {tally.label: tally.examples for tally in self._tallies()}
        names = self.names()
        return {
            "bundle": [label for label in self._known if not is_place(label)],
            "places": len(free_places(self._known)),
            "free": len(free_places(names)),
            "taken": [{"label": name, "examples": counts.get(name, 0)} for name in self.taken()],
            "waiting": [{"label": each, "examples": count} for each, count in counts.items() if each not in names],
        }

    def _tallies(self) -> list[Tally]:
        """Return the labels of examples in use, the most frequent first, whether they have an output or not."""
        rows = self._database.rows(
            "SELECT label, count(*), sum(1 - held_out) FROM examples WHERE set_aside IS NULL"
            " GROUP BY label ORDER BY count(*) DESC, label"
        )
        return [Tally(*row) for row in rows]

    def _waits(self, label: str) -> bool:
        return any(label == waiting.label for waiting in self.waiting())

    def _relabel(self, old: str, new: str) -> int:
        """Correct every example of a label, as if a correction had arrived for each."""
        found = list(self._database.rows("SELECT text, text_pair FROM examples WHERE label = ?", (old,)))
        for text, pair in found:
            self._store.add(Example(text, pair, new), Source("labels"))
        return len(found)

    def _must_be_ours(self, label: str) -> None:
        if label in self.taken() or self._waits(label):
            return
        if label in self._known and not is_place(label):
            message = f"{quoted(label)} is the bundle's own label"
            raise ConfigError(message, hint="export a bundle without it, or under another name")
        raise DataError(f"no label {quoted(label)} here", hint="see 'edge-far labels list'")
