"""Which label is in which output of a run: the bundle's own, and those that take places it keeps free."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_far.bundles.bundle import Bundle
from edge_far.errors import ConfigError, UsageError
from edge_far.json_file import Damaged
from edge_far.texts.places import LABELS_FILE, OpenNames, is_place, named_places, read_labels

__all__ = ["new_labels", "wanted_labels"]


def wanted_labels(options: argparse.Namespace, bundle: Bundle) -> tuple[str, ...]:
    """Return the labels of all outputs, nothing where they are the bundle's own.

    They are those of --labels; with --new-labels those that the training data has besides take places, by name.
    Raises ConfigError (78) where they do not fit the bundle, and what reading the data does.
    """
    known = bundle.manifest.labels
    if options.labels and options.new_labels:
        raise UsageError("--labels names them already", where="--new-labels", hint="leave one of both out")
    if options.labels:
        found = _listed(options.labels)
        if len(found) != len(known) or any(a != b and not is_place(b) for a, b in zip(found, known, strict=True)):
            hint = "name every output in its order; another label may stand only where the bundle has a free place"
            raise ConfigError("does not fit the bundle's labels", where=str(options.labels), hint=hint)
    elif options.new_labels:
        if bundle.manifest.task.name != "classify":
            raise ConfigError(f"a bundle of the task {bundle.manifest.task.name} has no places", where="--new-labels")
        from edge_far.texts.data import iterate_examples

        examples = iterate_examples(options.train, labels=OpenNames(known), columns=options.columns)
        found = named_places(known, sorted({str(example.label) for example in examples} - set(known)))
    else:
        return ()
    return () if found == known else found


def new_labels(options: argparse.Namespace, bundle: Bundle, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels whose outputs the learners to begin with do not know yet: they begin fitted.

    A release has its labels beside its learners; learners without are the bundle's.
    """
    path = options.learners.with_name(LABELS_FILE) if options.learners else None
    before = _listed(path) if path is not None and path.is_file() else bundle.manifest.labels
    if len(before) != len(bundle.manifest.labels):
        before = bundle.manifest.labels
    return tuple(label for label, was in zip(labels, before, strict=False) if label != was and not is_place(label))


def _listed(path: Path) -> tuple[str, ...]:
    try:
        return read_labels(path)
    except (OSError, Damaged) as error:
        raise ConfigError(f"is no list of labels: {error}", where=str(path), hint='write ["light_on", ...]') from error
