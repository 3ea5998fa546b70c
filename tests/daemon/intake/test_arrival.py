"""The order of arrival: other programs' files and those of `add`; the clock runs, jumps back, is right again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_far.daemon.intake.arrival import Waiting, dated_before, in_order, waiting_in

S = 10**9


def foreign(name: str, appeared_s: float, inode: int = 0) -> Waiting:
    return Waiting(name, int(appeared_s * S), inode)


def added(name: str, appeared_s: float, number_s: float | None = None) -> Waiting:
    """Return a file of `add`; its number is above its clock where something with a later date waited."""
    number = int((appeared_s if number_s is None else number_s) * S)
    return Waiting(f"{number:020d}-{name * 12}.jsonl", int(appeared_s * S))


def names(files: list[Waiting]) -> str:
    return "".join(file.name[-7] if file.name.endswith(".jsonl") else file.name for file in files)


@pytest.mark.parametrize(
    ("files", "now_s"),
    [
        ([foreign("a", 1000), foreign("b", 1001), added("c", 1002), foreign("d", 1003)], 1010),
        ([foreign("a", 1000, 7), foreign("b", 1000, 8)], 1010),  # the same instant
        # The clock goes back from 1010 to 500, and is still wrong.
        ([foreign("a", 1010), foreign("b", 510)], 520),
        ([foreign("a", 1000), foreign("b", 1010), foreign("c", 505), foreign("d", 510)], 520),
        ([foreign("a", 1010), added("b", 510, 1011)], 520),
        ([foreign("a", 1010), foreign("b", 510), added("c", 515, 1011), foreign("d", 518)], 520),
        ([added("a", 400), added("b", 1010), added("c", 510, 1011)], 520),
        ([added("a", 1010), foreign("b", 510), added("c", 515, 1011)], 520),
        # It is right again when the daemon looks.
        ([foreign("a", 1010), added("b", 510, 1011), foreign("c", 1035)], 1040),
        ([added("a", 1010), added("b", 510, 1011), added("c", 511, 1012), added("d", 1030)], 1040),
    ],
)
def test_the_order_is_that_of_arrival(files: list[Waiting], now_s: int) -> None:
    right = names(files)
    assert names(in_order(files, now_s * S)) == right
    assert names(in_order(files[::-1], now_s * S)) == right


@pytest.mark.parametrize(
    ("files", "looked_s", "now_s", "doubtful"),
    [
        ([foreign("a", 1010), foreign("b", 1020)], 1000, 1040, ""),
        ([foreign("a", 1010), foreign("b", 1020)], None, 1040, ""),
        ([foreign("a", 1010), foreign("b", 510)], 1000, 1040, "b"),
        ([foreign("a", 1010), foreign("b", 510)], None, 520, "b"),
        ([foreign("b", 510)], 1000, 520, ""),  # alone
        ([foreign("a", 999.5), foreign("b", 1001)], 1000, 1002, ""),  # a file system's rounding
    ],
)
def test_doubt_is_told(files: list[Waiting], looked_s: int | None, now_s: int, doubtful: str) -> None:
    found = dated_before(files, None if looked_s is None else looked_s * S, now_s * S)
    assert (found.name if found else "") == doubtful


def test_what_waits(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("x")
    os.utime(tmp_path / "file", (60, 60))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    found = waiting_in(descriptor, ["folder", "gone", "link", "file"])
    os.close(descriptor)
    assert [file.name for file in found] == ["link", "file"]
    assert found[1].appeared_ns == (tmp_path / "file").stat().st_ctime_ns > 60 * S
