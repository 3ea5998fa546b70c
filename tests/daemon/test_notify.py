"""sd_notify: the datagrams that arrive, on a path and on an abstract socket, and silence elsewhere."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_far.daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = f"edge-far-{secrets.token_hex(8)}"
    value = f"@{name}" if request.param == "abstract" else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}" if request.param == "abstract" else value)
        listener.setblocking(False)
        yield listener, value


def heard(listener: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(listener.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_messages(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert notifier.active
    notifier.ready("waiting")
    notifier.status("waiting")
    notifier.status("training\nstep 3")
    notifier.stopping("bye")
    notifier.extend(1.5)
    assert heard(listener) == [
        "READY=1\nSTATUS=waiting",
        "STATUS=training step 3",
        "STOPPING=1\nSTATUS=bye",
        "EXTEND_TIMEOUT_USEC=1500000",
    ]


def test_reloading_carries_the_monotonic_clock(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    Notifier({"NOTIFY_SOCKET": address}).reloading()
    first, second = heard(listener)[0].split("\n")
    stamp = int(second.removeprefix("MONOTONIC_USEC=")) / 1e6
    assert first == "RELOADING=1" and before - 1e-5 <= stamp <= time.clock_gettime(time.CLOCK_MONOTONIC)


def test_pings_follow_the_watchdog(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    now = 100.0
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(environment, clock=lambda: now)
    assert notifier.watchdog_s == 20.0
    for step in range(41):
        now = 100.0 + step
        notifier.ping()
    assert heard(listener) == ["WATCHDOG=1"] * 9


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog(manager: tuple[socket.socket, str], environment: dict[str, str]) -> None:
    listener, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address, **environment})
    notifier.ping()
    assert notifier.watchdog_s is None and heard(listener) == []


@pytest.mark.parametrize("value", ["", "relative", "/nowhere/at/all", "@nobody-listens-here", "/" + "x" * 300])
def test_nobody_listens(value: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": value, "WATCHDOG_USEC": "1000000"})
    notifier.ready("a")
    notifier.ping()
    notifier.reloading()
    notifier.stopping("b")


def test_full_queue_does_not_block(manager: tuple[socket.socket, str]) -> None:
    _, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    started = time.monotonic()
    for number in range(2000):
        notifier.status(f"step {number}")
    assert time.monotonic() - started < 5
