"""What binds a child of the daemon to its parent; `edge-far --child-of PARENT COMMAND ...` begins with it.

A child dies with its parent, so that no trainer writes beside the next daemon's, and it is the first that the
kernel takes when memory runs out.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["bind_to"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h
OOM_SCORE = "1000"


def bind_to(parent: int) -> bool:
    """Make this process die with the process `parent`; return False where that is dead already."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return False  # the parent died before the wish was known
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    return True
