"""Which directories hold the limits of a process, for every way in which control groups are mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_far.device.board.cgroups import groups_of


@pytest.mark.parametrize(
    ("lines", "directories"),
    [
        ("0::/a/b\n", ["a/b", "a", ".", "unified/a/b", "unified/a", "unified"]),
        ("0::/\n", [".", "unified"]),
        ("4:cpu,cpuacct:/a\n3:cpuset:/c\n", ["cpu,cpuacct/a", "cpu,cpuacct", "cpu/a", "cpu"]),
        ("2:cpu:/a\n0::/a\n", ["cpu/a", "cpu", "a", ".", "unified/a", "unified"]),
        ("0::/../outside\n", [".", "unified"]),  # seen from inside a namespace
        ("0::/gone (deleted)\n", ["gone", ".", "unified/gone", "unified"]),
        ("0::/a:b\n", ["a:b", ".", "unified/a:b", "unified"]),
        ("nonsense\n0\n\n:\n", []),
        ("", []),
    ],
)
def test_own_group_and_those_above(tmp_path: Path, lines: str, directories: list[str]) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(lines)
    base = tmp_path / "sys/fs/cgroup"
    assert [str(group.directory.relative_to(base)) for group in groups_of("cpu", tmp_path)] == directories


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(b"0::/a\xff\n")
    group = groups_of("cpu", tmp_path)[0]
    group.directory.mkdir(parents=True)
    (group.directory / "cpu.max").write_text("max 100000\n")
    assert group.text("cpu.max") == "max 100000" and group.text("memory.max") is None
