"""Learners that a fleet offers this device (fleet/): they wait until a cycle has put them through the device's gate.

    STATE/offer/learners.safetensors, offer.json    appears by one rename; a later offer takes its place

An offer is no release: the next cycle takes it in the place of training, and its gate decides. Standard library only.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from edge_far.daemon.context import Context
from edge_far.disk.directory_moves import discard_directory
from edge_far.errors import EdgeFarError
from edge_far.json_file import Count, Damaged, Within, read_document
from edge_far.storage import sha256_of, staged_directory, storage_error, write_atomically, write_json

__all__ = ["LEARNERS", "Offer", "copy_learners", "put_offer", "waiting_offer", "withdraw_offer"]

LEARNERS, DOCUMENT = "learners.safetensors", "offer.json"
NOTE_ADVICE = "the fleet's next release comes by itself; its server must name this device's bundle"
Digest = Annotated[str, Within(64, 64)]


@dataclass(frozen=True)
class Offer:
    """What is offered: learners of a bundle's fingerprint, after how many rounds, and the file's SHA-256."""

    bundle: Digest
    rounds: Count
    sha256: Digest


def put_offer(directory: Path, learners: Path, *, bundle: str, rounds: int) -> Offer:
    """Offer a file of learners; returns when it is durable. Raises StorageError (74)."""
    offer = Offer(bundle, rounds, sha256_of(learners))
    with staged_directory(directory, replace=True) as staging:
        write_atomically(staging / LEARNERS, learners.read_bytes())
        write_json(staging / DOCUMENT, asdict(offer))
    return offer


def waiting_offer(context: Context) -> Offer | None:
    """Return the offer that waits, None where there is none that can be used; one of another bundle is withdrawn.

    So is one for a device whose labels took places of the bundle's: there its outputs mean something else.
    """
    directory = context.state.offer
    if not directory.exists():
        return None
    reason = "is damaged"
    with suppress(OSError, Damaged, EdgeFarError):
        offer: Offer = read_document(directory / DOCUMENT, Offer)
        if offer.bundle != context.bundle.fingerprint:
            reason = "belongs to another bundle"
        elif context.new_labels.names() != context.bundle.manifest.labels:
            reason = "does not know the labels that this device has learnt"
        elif sha256_of(directory / LEARNERS) == offer.sha256:
            context.notes.tell("offer", None)
            return offer
    withdraw_offer(directory)
    context.notes.tell("offer", f"what the fleet offered {reason} and was not used", NOTE_ADVICE)
    return None


def copy_learners(directory: Path, offer: Offer, target: Path) -> bool:
    """Copy an offer's learners into a cycle's own file; False where another offer came meanwhile. StorageError (74)."""
    try:
        write_atomically(target, (directory / LEARNERS).read_bytes())
    except OSError as error:
        raise storage_error(error, target) from error
    return sha256_of(target) == offer.sha256


def withdraw_offer(directory: Path, sha256: str | None = None) -> None:
    """Remove the offer, with `sha256` only where it is still that one; raises StorageError (74)."""
    if not directory.exists():
        return
    if sha256 is not None:
        with suppress(OSError, Damaged):
            if read_document(directory / DOCUMENT, Offer).sha256 != sha256:
                return
    try:
        discard_directory(directory)
    except OSError as error:
        raise storage_error(error, directory) from error
