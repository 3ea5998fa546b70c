"""Whatever transformers is asked for goes through here: it keeps silent, and a failure becomes one line.

Some Rust packages print remarks and panics; they are dropped.

Loaders raise anything: KeyError, ImportError, errors of other packages. The checks of the other rooms come first and
name file and key; this is the net under them.
"""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge_far.errors import EdgeFarError, StorageError, Unavailable
from edge_far.process.packages import install_line
from edge_far.process.rust import is_panic, silence

__all__ = ["guarded", "reason_of", "transformers_package"]

MAX_REASON = 300
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TELLING_WORDS = 3


def transformers_package() -> Any:
    """Return the module transformers; raises Unavailable where it is missing or does not start."""
    try:
        import transformers
    except Exception as error:
        name = error.name if isinstance(error, ModuleNotFoundError) else None
        problem = f"the package {name} is missing" if name else f"transformers does not start: {reason_of(error)}"
        raise Unavailable(f"a model cannot be read here: {problem}", hint=install_line("host")) from error
    return transformers


@contextmanager
def guarded(what: str, where: str, hint: str) -> Iterator[None]:
    """Run a block of loaders in silence; what they raise becomes Unavailable: `what`, and the reason in one line.

    An error of the operating system, such as a file that may not be read, becomes StorageError.
    """
    try:
        with warnings.catch_warnings(), _quiet_transformers(), silence():
            warnings.simplefilter("ignore")
            yield
    except (EdgeFarError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        reason = f"the package {error.name} is missing" if error.name else reason_of(error)
        raise Unavailable(f"{what}: {reason}", where=where, hint=hint) from error
    except FileNotFoundError as error:
        raise Unavailable(f"{what}: {reason_of(error)}", where=where, hint=hint) from error
    except OSError as error:
        if error.errno is not None:
            named = str(error.filename or where)
            raise StorageError(f"cannot read: {error.strerror}", where=named, hint="check owner and mode") from error
        raise Unavailable(f"{what}: {reason_of(error)}", where=where, hint=hint) from error
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise Unavailable(f"{what}: {reason_of(error)}", where=where, hint=hint) from error


def reason_of(error: BaseException) -> str:
    """Return the first line of an error that says something, on one line and cut to MAX_REASON characters.

    A line such as 'BertLayer(' or a lone name says nothing; one that ends with a colon is joined with the next.
    """
    if isinstance(error, pickle.UnpicklingError):  # its own advice is to run whatever code the file holds
        return "the pickled file holds other things than weights, or is damaged"
    lines = [" ".join(_COLOURS.sub("", line).split()) for line in str(error).splitlines()]
    lines = [line for line in lines if line]
    for number, line in enumerate(lines):
        if line.endswith(":") and number + 1 < len(lines):
            line = f"{line} {lines[number + 1]}"
        if len(line.split()) >= _TELLING_WORDS and not line.endswith(("(", "[", "{")):
            return _cut(line)
    name = type(error).__name__
    return _cut(f"{name}: {lines[0]}") if lines else name


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hide what transformers prints while it loads: remarks on the new head, which is expected, and progress bars."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
