"""Runs one child and looks after it: is it alive, must it pause, must it stop, and how did it end.

Refuses to know the store and what a cycle is. A child is alive when its run log shows a new event; before the
first step, and for a child without a log, when it has used processor time. Only then is the watchdog told.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from edge_far.daemon.children.child_end import ChildEnd, Progress
from edge_far.daemon.notify import Notifier
from edge_far.errors import Unavailable
from edge_far.process.children import child_environment, module_command
from edge_far.storage import storage_error

__all__ = ["Supervisor", "Wish", "oom_kills"]

POLL_S = 0.2
STALL_S = 240.0
STALL_SHARE = 0.8  # of the watchdog's interval: a stalled child is killed before systemd kills the daemon
GAP_S = 10.0
CHILD_OF = "--child-of"  # cli.py
GRACE_S = 8.0  # for the checkpoint; the daemon itself must end within 10
SHOWN_BYTES = 2000
RESERVED_BYTES = 4096  # of each output, so that a child which fills the disk can still say so; zeros where unused


@dataclass(frozen=True)
class Wish:
    """What the one who asked for the child wants now; `reason` is for the log of the cycle."""

    action: Literal["run", "pause", "stop", "kill"] = "run"
    reason: str = ""


class Supervisor:
    """Starts children in sessions of their own, one at a time; `descriptors` stay open in them."""

    def __init__(
        self,
        notifier: Notifier,
        *,
        descriptors: Sequence[int] = (),
        stall_s: float | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._notifier = notifier
        self._descriptors = tuple(descriptors)
        watchdog = notifier.watchdog_s
        self.stall_s = stall_s or (STALL_S if watchdog is None else min(STALL_S, STALL_SHARE * watchdog))
        self._poll_s = poll_s

    def run(
        self,
        arguments: Sequence[str | Path],
        output: Path,
        *,
        log: Path | None = None,
        control: Path | None = None,
        wish: Callable[[Progress], Wish] = lambda progress: Wish(),
    ) -> ChildEnd:
        """Run `edge-far ARGUMENTS` to its end; what it prints goes to OUTPUT.json and OUTPUT.err.

        `log` is followed from its present end, `control` is where a wish to pause is written. `wish` is asked a
        few times a second. Raises StorageError (74), and Unavailable (69) where no process starts.
        """
        follower = _LogFollower(log)
        try:
            with output.with_suffix(".json").open("wb") as stdout, output.with_suffix(".err").open("wb") as stderr:
                for file in (stdout, stderr):
                    os.pwrite(file.fileno(), bytes(RESERVED_BYTES), 0)  # the child writes over it from the beginning
                process = self._start(arguments, stdout, stderr)
        except OSError as error:
            raise storage_error(error, output) from error
        before = oom_kills()
        try:
            watch = _Watch(process, follower, control, self.stall_s, self._notifier)
            while process.poll() is None:
                watch.look(wish)
                time.sleep(self._poll_s)
            follower.read()
        finally:
            _kill(process)
        after = oom_kills()
        document, text = _outcome(output)
        return ChildEnd(
            status=process.returncode,
            seconds=time.monotonic() - watch.began_s,
            progress=follower.progress,
            stalled=watch.stalled,
            stopped=watch.stopped,
            oom_killed=process.returncode == -signal.SIGKILL and (after or 0) > (before or 0) and not watch.stopped,
            error=document,
            text=text,
        )

    def _start(self, arguments: Sequence[str | Path], stdout: BinaryIO, stderr: BinaryIO) -> subprocess.Popen[bytes]:
        environment = child_environment() | {"PYTHONUNBUFFERED": "1"}
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):  # readiness and watchdog are the daemon's to tell
            environment.pop(name, None)
        command = [*module_command("edge_far.cli"), CHILD_OF, str(os.getpid()), *map(str, arguments)]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                pass_fds=self._descriptors,
                start_new_session=True,
            )
        except OSError as error:  # Python was removed or replaced, or no process can be made now
            raise Unavailable(f"Python does not start here: {error.strerror}", where=command[0]) from error


class _Watch:
    """Looks after one running child."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        follower: _LogFollower,
        control: Path | None,
        stall_s: float,
        notifier: Notifier,
    ) -> None:
        self.began_s = self._alive_s = self._looked_s = time.monotonic()
        self.stalled = False
        self.stopped: str | None = None
        self._process, self._follower, self._control = process, follower, control
        self._stall_s = stall_s
        self._notifier = notifier
        self._processor_s = -1.0
        self._asked_s = 0.0
        self._written = ""

    def look(self, wish: Callable[[Progress], Wish]) -> None:
        """Follow the log, tell the watchdog, pass on what is wished for, kill what is stalled."""
        now = time.monotonic()
        if now - self._looked_s > GAP_S:  # this process was frozen itself, and the child perhaps with it
            self._alive_s += now - self._looked_s
        self._looked_s = now
        if self._has_advanced():
            self._alive_s = now
            self._notifier.ping()
        elif now - self._alive_s > self._stall_s:
            self.stalled = True
            _kill(self._process)
            return
        wanted = wish(self._follower.progress)
        if wanted.action in ("run", "pause"):
            self._write_control(wanted.action)
        elif self.stopped is None:
            self.stopped, self._asked_s = wanted.reason, now
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL if wanted.action == "kill" else signal.SIGTERM)
        if self.stopped is not None and now - self._asked_s > GRACE_S:
            _kill(self._process)

    def _has_advanced(self) -> bool:
        told = self._follower.read()
        if self._follower.progress.step:
            return told
        used = _processor_s(self._process.pid)
        advanced = used > self._processor_s
        self._processor_s = max(used, self._processor_s)
        return told or advanced

    def _write_control(self, word: str) -> None:
        if self._control is not None and word != self._written and (self._written or word == "pause"):
            # Not durable on purpose: after a power cut a missing file means run.
            temporary = self._control.with_suffix(".tmp")
            with suppress(OSError):
                temporary.write_text(word)
                temporary.replace(self._control)
                self._written = word


class _LogFollower:
    """Reads the events that are appended to a run log from now on."""

    def __init__(self, path: Path | None) -> None:
        self.progress = Progress()
        self._path = path
        self._position = 0
        if path is not None:
            with suppress(OSError):
                self._position = path.stat().st_size

    def read(self) -> bool:
        """Take in what is new; return whether there was a complete event."""
        if self._path is None:
            return False
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                found = file.read()
        except OSError:
            return False
        complete = found[: found.rfind(b"\n") + 1]
        self._position += len(complete)
        for line in complete.splitlines():
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                self._take(json.loads(line))
        return bool(complete)

    def _take(self, record: dict[str, Any]) -> None:
        progress, event = self.progress, record["event"]
        progress.events += 1
        if event in ("start", "resume"):
            progress.steps = int(record["steps"])
            progress.micro_batch = int(record["plan"]["micro_batch"])
            progress.predicted_peak_mib = float(record["plan"]["predicted_peak_mib"])
        elif event == "step":
            progress.step = int(record["step"])
            progress.loss = float(record["loss"])
            progress.peak_rss_mib = max(progress.peak_rss_mib, float(record["peak_rss_mib"]))
        elif event == "paused":
            progress.paused = True
        elif event == "resumed":
            progress.paused = False
            progress.paused_s += float(record["seconds"])
        elif event == "step_down":
            progress.step_downs += 1


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return how many processes of this control group the kernel has killed for memory; None where unknown."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, name = line.split(":", 2)
        relative = name.lstrip("/")
        if controllers == "":
            file = root / "sys/fs/cgroup" / relative / "memory.events"
        elif "memory" in controllers.split(","):
            file = root / "sys/fs/cgroup/memory" / relative / "memory.oom_control"
        else:
            continue
        with suppress(OSError, ValueError, IndexError):
            for entry in file.read_text().splitlines():
                if entry.startswith("oom_kill "):
                    return int(entry.split()[1])
    return None


def _processor_s(pid: int) -> float:
    """Return the processor time a process has used; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the child and all it has started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(output: Path) -> tuple[dict[str, Any], str]:
    """Return the error document that a child printed, or {}, and the last line it wrote for people."""
    error: dict[str, Any] = {}
    text = ""
    with suppress(OSError, ValueError, AttributeError):
        found = json.loads(output.with_suffix(".json").read_bytes().rstrip(b"\0")).get("error")
        error = found if isinstance(found, dict) else {}
    with suppress(OSError):
        with output.with_suffix(".err").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - RESERVED_BYTES - SHOWN_BYTES))
            told = file.read().rstrip(b"\0")[-SHOWN_BYTES:].decode("utf-8", "replace")
            lines = [line for line in told.splitlines() if line.strip()]
        text = lines[-1].strip() if lines else ""
    return error, text
