"""Which built-in profile fits this board: by what it calls itself, and by its RAM. Refuses to know who asks.

A machine that calls itself nothing that a profile names, a workstation say, is not recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edge_far.device.board.identity import Identity
from edge_far.profile.document import Profile, list_profiles

__all__ = ["Match", "nearest_profile", "recognise"]


@dataclass(frozen=True)
class Match:
    """The profile for a board that was recognised; `exact` is False where it is another's, with no more RAM."""

    profile: Profile
    exact: bool
    why: str


def recognise(board: Identity, profiles: Sequence[Profile] | None = None) -> Match | None:
    """Return the built-in profile for this board; None where no profile names it, or each asks for more RAM.

    Of those that name it the one with the most RAM that this board has. Where all of them ask for more (a Raspberry Pi
    4 with 1 GB), the largest that this board has the RAM for, of its own maker.
    """
    profiles = list_profiles() if profiles is None else profiles
    named = [profile for profile in profiles if _names(profile, board)]
    if not named or board.sold_mib is None:
        return None
    told = f"it calls itself '{board.model}' and has {size(board.sold_mib)} of RAM"
    if fitting := _within(named, board):
        return Match(fitting[-1], True, told)
    maker = named[0].board.models.split()[0]
    kin = _within([profile for profile in profiles if profile.board.models.startswith(maker)], board)
    if not kin:
        return None
    return Match(kin[-1], False, f"{told}; no profile is for this size, and this one asks for no more")


def nearest_profile(board: Identity, profiles: Sequence[Profile] | None = None) -> Profile | None:
    """Return the board's profile with the most RAM that this machine has too, for somebody to start from."""
    profiles = list_profiles() if profiles is None else profiles
    known = [profile for profile in profiles if profile.board.models]
    fitting = _within(known, board)
    return fitting[-1] if fitting else None


def size(mib: int) -> str:
    """Return a size of RAM as people say it: 512 MB, 4 GB."""
    return f"{mib // 1024} GB" if mib >= 1024 else f"{mib} MB"


def _within(profiles: Sequence[Profile], board: Identity) -> list[Profile]:
    """Return the profiles that ask for no more RAM than the board has, the best last: most RAM, equal instructions."""

    def merits(profile: Profile) -> tuple[int, bool, int]:
        alike = profile.board.dot_product == ("asimddp" in board.features)
        return profile.board.ram_mib or 0, alike, -profile.memory.budget_mib

    ram = board.sold_mib or 0
    fitting = [each for each in profiles if each.board.ram_mib is not None and each.board.ram_mib <= ram]
    return sorted(fitting, key=merits)


def _names(profile: Profile, board: Identity) -> bool:
    model = (board.model or "").lower()
    patterns = [pattern.strip().lower() for pattern in profile.board.models.split(";")]
    return any(pattern and fnmatchcase(model, pattern) for pattern in patterns)
