"""The ladder's rungs by name, for those who must know them before torch is there."""

from __future__ import annotations

import re

__all__ = ["RUNGS", "is_rung", "last_blocks"]

RUNGS = "head, top-K (top-2), far, full"  # in words
_TOP = re.compile(r"top-([1-9][0-9]{0,3})")


def is_rung(name: str) -> bool:
    """Say whether a name is one of the rungs: head, far, full, top-1, top-2, ..."""
    return name in ("head", "far", "full") or _TOP.fullmatch(name) is not None


def last_blocks(name: str) -> int | None:
    """Return K of top-K, None for another name."""
    match = _TOP.fullmatch(name)
    return None if match is None else int(match[1])
