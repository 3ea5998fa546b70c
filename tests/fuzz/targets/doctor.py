"""What `edge-far doctor` reads: another system's files that are missing, cut, absurd or directories."""

from __future__ import annotations

from random import Random

from tests.doctor.boards import BOARDS, Link
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.targets.base import Case, Target
from tests.fuzz.targets.sensors import ABSURD

__all__ = ["SystemTree"]


class SystemTree(Target):
    """The tree of one of the boards; every file of it is a finding's, and may be spoilt."""

    name = "doctor"
    codes = silent = frozenset({0, 1, 69})
    outputs = ("var",)  # whether its directories can be fsynced is tried

    def make(self, chance: Random) -> Case:
        """Return a tree in which some files are missing, changed, or directories."""
        files: dict[str, bytes] = {}
        for name, content in BOARDS[chance.choice(list(BOARDS))].items():
            if isinstance(content, Link):
                continue
            whole = content.encode() if isinstance(content, str) else content
            kind = chance.randrange(8)
            if kind == 1:
                files[name] = chance.choice(ABSURD)
            elif kind == 2:
                files[name] = mutate_bytes(whole, chance)
            elif kind == 3:
                files[f"{name}/inside"] = whole
            elif kind:
                files[name] = whole
        return Case(files, ("doctor", "--root", "{work}"))
