"""The application's own say before a release: a command that looks at the candidate and may veto it.

The command gets the candidate's directory as its last argument and as EDGE_FAR_RELEASE; exit status 0
accepts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HealthResult", "ask_health_command"]

POLL_S = 0.2
SHOWN_BYTES = 2000


@dataclass(frozen=True)
class HealthResult:
    """Whether the command accepts the candidate; `text` says how it ended and the end of what it printed."""

    accepted: bool
    text: str


def ask_health_command(
    command: Sequence[str],
    release: Path,
    *,
    timeout_s: float = 300.0,
    tick: Callable[[], None] = lambda: None,
) -> HealthResult:
    """Run the command on a release; a command that cannot start, fails or takes too long is a veto."""
    environment = {**os.environ, "EDGE_FAR_RELEASE": str(release)}
    environment.pop("NOTIFY_SOCKET", None)  # readiness and watchdog are the daemon's to tell
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                [*command, str(release)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return HealthResult(False, f"the health command cannot start: {error.strerror}")
        try:
            ended = _wait(process, timeout_s, tick)
        finally:
            with suppress(ProcessLookupError):  # whatever it started must not stay behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(max(0, output.seek(0, os.SEEK_END) - SHOWN_BYTES))
        printed = output.read().decode("utf-8", "replace").strip()
    if not ended:
        how = f"the health command did not end within {timeout_s:g} s"
    elif process.returncode < 0:
        how = f"the health command was killed by signal {-process.returncode}"
    else:
        how = f"the health command ended with status {process.returncode}"
    return HealthResult(ended and process.returncode == 0, f"{how}: {printed}" if printed else how)


def _wait(process: subprocess.Popen[bytes], timeout_s: float, tick: Callable[[], None]) -> bool:
    """Wait for the end, calling `tick` often enough for a watchdog; return whether it came in time."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        tick()
        time.sleep(POLL_S)
    return True
