"""What commands share: how many threads run here, and what is said about it."""

from __future__ import annotations

import argparse

import pytest

from edge_far.commands.common import add_profile_arguments, threads_of
from edge_far.console import Console
from edge_far.device.board.cpu import CpuShare
from edge_far.errors import ConfigError
from edge_far.profile.document import Compute, Memory, Profile

PROFILE = Profile(name="test", memory=Memory(budget_mib=300), compute=Compute(threads=4))


@pytest.mark.parametrize(
    ("share", "asked", "threads", "said"),
    [
        (CpuShare((0, 1, 2, 3), 4), None, 4, ""),
        (CpuShare((0, 1), 4), None, 2, ""),
        (CpuShare((0, 1, 2, 3), 4, 0.5), None, 1, "1 thread instead of the profile's 4: this process has a quota 0.5"),
        (CpuShare((0, 1, 2, 3), 4, 1.5), None, 2, "2 threads instead of the profile's 4"),
        (CpuShare((0,), 4, 0.5), None, 1, ""),  # one core is the tighter limit
        (CpuShare((0, 1, 2, 3), 4, 0.5), 4, 4, "warning: 4 threads are slower than 1 here: quota 0.5 of a core"),
        (CpuShare((0, 1), 2), 4, 4, ""),
    ],
)
def test_threads(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    share: CpuShare,
    asked: int | None,
    threads: int,
    said: str,
) -> None:
    monkeypatch.setattr("edge_far.device.board.cpu.cpu_share", lambda: share)
    assert threads_of(argparse.Namespace(threads=asked), PROFILE, Console()) == threads
    shown = capsys.readouterr()
    assert shown.out == "" and (shown.err.startswith(said) if said else not shown.err)


def test_without_a_profile_one_thread_and_absurd_numbers_are_refused() -> None:
    parser = argparse.ArgumentParser()
    add_profile_arguments(parser)
    assert threads_of(parser.parse_args([]), None, Console()) == 1
    for number in (0, -1, 99999):
        with pytest.raises(ConfigError, match="must be from 1 to 1024"):
            parser.parse_args(["--threads", str(number)])
