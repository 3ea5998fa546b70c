"""What every child of the daemon is started through: `python -m edge_far.daemon.training.child PARENT COMMAND ...`.

A child dies with its parent, so that no trainer writes beside the next daemon's, and it is the first that the
kernel takes when memory runs out.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["main"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h
OOM_SCORE = "1000"
INTERNAL = 70


def main(arguments: Sequence[str]) -> int:
    """Run `decide`, or a command of edge-far, as the child of the process PARENT."""
    parent, command, *rest = arguments
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        return INTERNAL  # the parent died before the wish was known
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    if command == "decide":
        from edge_far.daemon.gate.decide import main as decide

        return decide(rest)
    from edge_far import cli

    return cli.main([command, *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
