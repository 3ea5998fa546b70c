"""How a Python process of ours is started: without the working directory among the places of its modules.

A file that lies about there with the name of a package, such as tokenizers.py, must not be taken for it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["child_environment", "hear_of_children", "module_command"]


def hear_of_children() -> None:
    """Let this process learn how its children end, where whoever started it ignores SIGCHLD.

    The wish not to hear is inherited, and Python then takes every end for a success.
    """
    with suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def module_command(module: str, python: str | Path = sys.executable) -> list[str]:
    """Return the words that run a module of ours; the arguments follow."""
    return [str(python), "-P", "-m", module]


def child_environment() -> dict[str, str]:
    """Return this process's variables; where edge-far itself was found in the working directory, it is named."""
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    if sys.path[:1] == [root] and not sys.flags.safe_path:  # `python -m edge_far.cli` in a checkout, not installed
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return environment
