"""Tells systemd how the service is: ready, busy with what, alive, reloading, stopping (sd_notify(3)).

Standard library only. Outside systemd every call does nothing; a message that cannot be sent never stops the
daemon. Pings must come from the work itself: a timer thread would go on pinging for a daemon that hangs.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

__all__ = ["Notifier"]

PINGS_PER_INTERVAL = 4


class Notifier:
    """One service's connection to its manager, from NOTIFY_SOCKET and WATCHDOG_USEC of the environment."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        environment = os.environ if environment is None else environment
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._clock = clock
        self.watchdog_s = _watchdog_s(environment)
        self._last_ping_s: float | None = None
        self._status: str | None = None

    @property
    def active(self) -> bool:
        """Return whether there is someone to tell."""
        return self._address is not None

    def ready(self, status: str) -> None:
        """Say that the service has started, or that a reload has ended."""
        self._status = status
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Say in one line what the service does; a text that was said last is not said again."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_line(text)}")

    def ping(self) -> None:
        """Say that work goes on; sent at most four times an interval, so call it after every step."""
        if self.watchdog_s is None:
            return
        now = self._clock()
        if self._last_ping_s is None or now - self._last_ping_s >= self.watchdog_s / PINGS_PER_INTERVAL:
            self._last_ping_s = now
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that the configuration is read again; `ready` ends it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self, status: str) -> None:
        """Say that the service ends in good order."""
        self._send("STOPPING=1", f"STATUS={_line(status)}")

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode("utf-8"), self._address)
        except OSError:
            pass  # a manager that does not listen is no reason to stop


def _address(value: str) -> str | bytes | None:
    """Return the address of a socket in the file system (/...) or in the abstract name space (@...)."""
    if value.startswith("@"):
        return b"\0" + os.fsencode(value[1:])
    return value if value.startswith("/") else None


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return the watchdog's interval, if it is meant for this process."""
    process = environment.get("WATCHDOG_PID", "")
    interval = environment.get("WATCHDOG_USEC", "")
    if not interval.isdigit() or int(interval) == 0 or (process and process != str(os.getpid())):
        return None
    return int(interval) / 1e6


def _line(text: str) -> str:
    return " ".join(text.split())
