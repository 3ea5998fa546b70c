"""What makes two texts the same example, and which side of the held-out split a text is on, for ever.

Changing anything here would move examples between training and held-out data on devices in the field: a new
rule needs a new SPLIT version and a migration of the store.
"""

from __future__ import annotations

import hashlib
import unicodedata

__all__ = ["example_key", "is_held_out", "normalise"]

SPLIT = b"edge-far split 1\0"


def normalise(text: str) -> str:
    """Return the text in NFKC, case folded, with runs of white space as one space and none at the ends."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def example_key(text: str, text_pair: str | None = None) -> bytes:
    """Return the 32 bytes that name a text (or pair of texts), whatever its label."""
    parts = [normalise(text)] if text_pair is None else [normalise(text), normalise(text_pair)]
    return hashlib.sha256("\x1f".join(parts).encode("utf-8")).digest()


def is_held_out(key: bytes, share: float) -> bool:
    """Return whether the example named `key` belongs to the held-out `share` (0 to 1) of all examples."""
    number = int.from_bytes(hashlib.sha256(SPLIT + key).digest()[:8], "big")
    return number < int(share * 2**64)
