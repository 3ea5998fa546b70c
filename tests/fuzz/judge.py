"""Runs one command in this process as a shell would, and says what is wrong with how it ended.

A right ending: an exit code that the target allows, one line `edge-far: error: ...` on stderr where the code is not 0,
one JSON document on stdout, no exception out of `main`, nothing written but below the places that are free, the peak of
memory and the time within bounds.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from edge_far import cli
from edge_far.errors import EdgeFarError
from edge_far.storage import TRIAL
from tests.fuzz.watch import TookTooLong, peak_above, time_limit, written_files
from tests.memory_streams import content_of, streams_in_memory

__all__ = ["Bounds", "Ending", "Reached", "call", "problem_of", "run"]

DEVICES = ("/dev/null", "/dev/full", "/dev/tty", "/dev/shm/sem.", "/proc/", "/memfd:")
REPOSITORY = Path(__file__).resolve().parents[2]
_fail = cli._fail


class Reached(BaseException):
    """Raised in place of a function: what is tried out ends here, and it ended well."""


@dataclass(frozen=True)
class Bounds:
    """What an ending may be.

    `free` are the files and directories that may be written to, their temporary siblings included; a code of `silent`
    is part of a result and comes without an error line.
    """

    codes: frozenset[int]
    free: tuple[Path, ...]
    seconds: float = 30.0
    mib: float = 96.0
    silent: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    `crash` is an exception that left it, in one line with its place in edge_far; `seconds` are of processor time.
    """

    arguments: tuple[str, ...]
    code: int | None
    out: str
    err: str
    crash: str | None
    seconds: float
    grown_mib: float
    written: frozenset[str]

    @property
    def document(self) -> Any:
        """Return the JSON document on stdout; raises ValueError where it is none, or not strict JSON."""
        return json.loads(self.out, parse_constant=_refuse_constant)


def run(arguments: Sequence[str | Path], bounds: Bounds, *, stdin: bytes = b"") -> Ending:
    """Run `edge-far ARGUMENTS --json -q`."""
    words = [*map(str, arguments), "--json", "-q"]

    def work() -> int:
        with mock.patch.multiple(cli, _fail=_fail_openly, _fail_in_need=_let_through):
            return cli.main(words)

    return _ending(tuple(words), work, bounds, stdin)


def _fail_openly(error: BaseException, arguments: list[str]) -> int:
    """Tell of a failure as the command line does, but let through what nobody foresaw: the last net hides its place."""
    if isinstance(error, Reached | TookTooLong):
        raise error
    code = _fail(error, arguments)
    if code == EdgeFarError.exit_code and type(error) is not EdgeFarError:
        raise error
    return code


def _let_through(_: BaseException, second: BaseException) -> int:
    """Raise what `_fail_openly` let through: the net under the net would hide it again."""
    raise second


def call(name: str, function: Callable[[], Any], bounds: Bounds) -> Ending:
    """Run a function of edge-far that has no command of its own; an EdgeFarError is told as the command line does."""

    def work() -> int:
        try:
            function()
        except EdgeFarError as error:
            print(json.dumps({"error": error.as_document()}))
            print(f"edge-far: error: {error}", file=sys.stderr)
            return error.exit_code
        print("{}")
        return 0

    return _ending((name,), work, bounds, b"")


def problem_of(ending: Ending, bounds: Bounds) -> str | None:
    """Return what is wrong with an ending in one line, or None."""
    if ending.crash is not None:
        return ending.crash
    if ending.code not in bounds.codes:
        return f"exit code {ending.code}: {ending.err.strip()[:300]!r}"
    lines = [line for line in ending.err.splitlines() if not line.startswith("warning: ")]
    if ending.code and ending.code not in bounds.silent:
        if not lines or not lines[0].startswith("edge-far: error: "):
            return f"exit code {ending.code} without an error line: {ending.err[:300]!r}"
        lines = [line for line in lines[1:] if not line.startswith("  At '")]  # a profile tells all its errors at once
    if lines:
        return f"more than one line on stderr: {ending.err[:300]!r}"
    if shown := re.search(r"[\0-\x08\x0b-\x1f\x7f]", ending.err):
        return f"a control character on stderr: {shown[0]!r} in {ending.err[:300]!r}"
    try:
        document = ending.document
    except ValueError as error:
        return f"stdout is not one JSON document: {error}: {ending.out[:200]!r}"
    if bool(ending.code) and isinstance(document, dict) and "error" in document:
        error = document["error"]
        if error["exit_code"] != ending.code or not error["message"].strip():
            return f"the document tells another error: {error}"
    return _excess(ending, bounds)


def _excess(ending: Ending, bounds: Bounds) -> str | None:
    if ending.seconds > bounds.seconds:
        return f"took {ending.seconds:.1f} s"
    if ending.grown_mib > bounds.mib:
        return f"took {ending.grown_mib:.0f} MiB of memory"
    foreign = sorted(path for path in ending.written if not any(_is_part(path, place) for place in bounds.free))
    return f"wrote to {foreign[0]}" if foreign else None


def _is_part(path: str, place: Path) -> bool:
    """Say whether a path is a place that may be written to, lies below it, or below its temporary sibling.

    A sibling is also the file by which a command tries, before its work, whether an output can be made there.
    """
    return f"{path}/".startswith((f"{place}/", f"{place.parent}/.{place.name}.", f"{place.parent}/.{TRIAL}."))


def _ending(arguments: tuple[str, ...], work: Callable[[], int], bounds: Bounds, stdin: bytes) -> Ending:
    code, crash = None, None
    began = time.process_time()
    with (
        streams_in_memory(stdin) as (out, err),
        written_files() as written,
        peak_above() as grown,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        warnings.showwarning = _show_warning  # as Python does without pytest: a second line on stderr
        try:
            with time_limit(bounds.seconds):
                code = work()
        except Reached:
            code = 0
            print("{}")
        except TookTooLong as error:
            crash = f"did not end within {bounds.seconds:g} s, at {_place(error)}"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of a Rust library is no Exception
            said = (str(error).splitlines() or [""])[0][:200]
            crash = f"{type(error).__name__} at {_place(error)}: {said}"
    devices = {path for path in written if path.startswith(DEVICES) or path.endswith(".pyc")}
    return Ending(
        arguments=arguments,
        code=code,
        out=content_of(out),
        err=content_of(err),
        crash=crash,
        seconds=time.process_time() - began,
        grown_mib=grown[0],
        written=frozenset(written - devices),
    )


def _place(error: BaseException) -> str:
    """Return file and line of the innermost frame of edge_far that an exception passed."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/edge_far/" in frame.filename]
    frame = ours[-1] if ours else traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename.removeprefix(f'{REPOSITORY}/')}:{frame.lineno}"


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    print(warnings.formatwarning(message, category, filename, lineno), file=sys.stderr, end="")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
