"""Imports the package of an extra where it is needed, or says how to install it."""

from __future__ import annotations

import importlib
from types import ModuleType

from edge_far.errors import Unavailable
from edge_far.process.packages import install_line

__all__ = ["module_of"]


def module_of(extra: str, name: str) -> ModuleType:
    """Return a module of the extra's package; raises Unavailable (69) with the line that installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        message = f"the package {name.partition('.')[0]} is not installed here"
        raise Unavailable(message, hint=install_line(f"device,{extra}")) from error
