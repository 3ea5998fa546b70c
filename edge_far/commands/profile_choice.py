"""Which profile a command takes: the one that was named, the bundle's, or this board's own.

`--profile auto` is this board's. Without --profile it is the bundle's, where that is a board's; a bundle that was
exported for no board (`workstation`, or a file of the workstation's) takes this board's own. On a machine that is no
board that a built-in profile names, a workstation say, all is as if there were no `auto`.
"""

from __future__ import annotations

from pathlib import Path

from edge_far.device.board.identity import identify
from edge_far.device.board.known_boards import recognise
from edge_far.profile.document import built_in, builtin_names, load_profile

__all__ = ["AUTO", "default_profile", "of_this_board", "profile_word"]

AUTO = "auto"
ROOT = Path("/")


def profile_word(word: str) -> str | None:
    """Return the profile that --profile names; for `auto` this board's, None (the default) where it is not known."""
    return of_this_board() if word == AUTO else word


def default_profile(named: str) -> str:
    """Return the profile of a command that was given none; `named` is the bundle's.

    Raises ConfigError where the bundle's is none of the built-in ones and this board is not known.
    """
    if named in builtin_names() and load_profile(named).board.models:
        return named
    return of_this_board() or built_in(named)


def of_this_board() -> str | None:
    """Return the name of the built-in profile for this board, None where it is not recognised."""
    board = identify(ROOT)
    match = None if board.model is None else recognise(board)
    return None if match is None else match.profile.name
