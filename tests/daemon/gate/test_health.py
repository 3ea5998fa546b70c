"""The health command: accepts with status 0, and vetoes in every other way it can end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from edge_far.daemon.gate.health import ask_health_command


def ask(code: str, **options: object) -> tuple[bool, str]:
    result = ask_health_command([sys.executable, "-c", code], Path("/a/release"), **options)  # type: ignore[arg-type]
    return result.accepted, result.text


def test_accepts_and_gets_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    code = (
        "import os, sys; assert sys.argv[1] == os.environ['EDGE_FAR_RELEASE'] == '/a/release';"
        "assert 'NOTIFY_SOCKET' not in os.environ; print('fine')"
    )
    assert ask(code) == (True, "the health command ended with status 0: fine")


def test_vetoes() -> None:
    assert ask("import sys; print('x' * 9000, 'too slow'); sys.exit(3)")[0] is False
    accepted, text = ask("import sys; print('x' * 9000, 'too slow'); sys.exit(3)")
    assert text.startswith("the health command ended with status 3: x") and text.endswith("too slow")
    assert len(text) < 2100 and not accepted
    assert ask("import os; os.kill(os.getpid(), 9)") == (False, "the health command was killed by signal 9")
    missing = ask_health_command(["/no/such/command"], Path("/r"))
    assert not missing.accepted and "cannot start: No such file" in missing.text


def test_too_long_is_a_veto_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    ticks: list[float] = []
    started = time.monotonic()
    assert ask(code, timeout_s=0.7, tick=lambda: ticks.append(0.0)) == (
        False,
        "the health command did not end within 0.7 s",
    )
    assert time.monotonic() - started < 5 and len(ticks) >= 2
    time.sleep(1.6)
    assert not mark.exists()
