"""Calibration: measured once, cached per machine, threads and operators; damage and failure never stop a plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle, open_bundle
from edge_far.console import Console
from edge_far.device.board.cpu import CpuShare
from edge_far.device.optimizers.registry import OPTIMIZERS
from edge_far.device.planning import machine_speed
from edge_far.device.planning.machine_speed import Calibration, calibrate, machine_name
from edge_far.device.planning.parts import value_at
from edge_far.device.planning.probe import SHAPES, SHAPES_BESIDE, _time_operators
from tests.tiny_cases import CASES

pytestmark = pytest.mark.device  # the probe holds operators that the workstation's ONNX Runtime does not know

QUIET = Console(quiet=True)


@pytest.fixture
def bundle(tiny_bundle: Callable[[str], Bundle]) -> Bundle:
    return tiny_bundle("tiny-int8")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edge-far"


def measured(bundle: Bundle, threads: int = 1, room_mib: float = 1024.0) -> Calibration:
    found = calibrate(bundle, threads, QUIET, room_mib)
    assert found is not None
    return found


def test_every_operator_is_measured_at_every_shape(bundle: Bundle, cache: Path) -> None:
    found = measured(bundle)
    shapes = list(dict.fromkeys((batch, min(sequence, 64)) for batch, sequence in SHAPES))
    assert set(found.kernels) == {operator.kernel for operator in bundle.manifest.portable.probe}
    for operator in bundle.manifest.portable.probe:
        expected = sorted((value_at(operator.size, *shape), value_at(operator.work, *shape)) for shape in shapes)
        assert sorted((size, work) for size, work, _ in found.kernels[operator.kernel]) == expected
        assert all(0 < seconds < 1 for _, _, seconds in found.kernels[operator.kernel])
    assert found.node_seconds >= 0 and 0 < found.mask_byte_seconds < 1e-5
    assert set(found.parameter_seconds) == set(OPTIMIZERS)
    assert all(0 < seconds < 1e-5 for seconds in found.parameter_seconds.values())
    assert found.source.startswith(machine_name()) and "1 thread, onnxruntime" in found.source


def test_of_a_prefix_the_kernels_are_measured_side_by_side_too(
    tiny_bundle: Callable[[str], Bundle], cache: Path
) -> None:
    frozen = tiny_bundle("bert-top1-5")
    one, two = measured(frozen), measured(frozen, threads=2)
    assert not one.kernels_beside and set(two.kernels_beside) == set(two.kernels)
    texts = list(dict.fromkeys((batch, min(sequence, 64)) for batch, sequence in SHAPES_BESIDE))
    for operator in frozen.manifest.portable.probe:
        points = two.kernels_beside[operator.kernel]
        assert sorted(work for _, work, _ in points) == sorted(value_at(operator.work, *shape) for shape in texts)
        assert all(0 < seconds < 1 for _, _, seconds in points)


@pytest.mark.parametrize("name", {case.architecture: case.name for case in CASES}.values())
def test_the_sizes_of_every_architectures_probe_are_known(name: str, tiny_bundle: Callable[[str], Bundle]) -> None:
    """One whose sizes are not is no failure: a plan says that it predicts no times."""
    bundle = tiny_bundle(name)
    kernels, _ = _time_operators(bundle, threads=1, room_mib=1024.0, seconds=0.0)
    assert set(kernels) == {operator.kernel for operator in bundle.manifest.portable.probe}


def test_the_second_time_the_file_answers(bundle: Bundle, cache: Path) -> None:
    first = measured(bundle)
    (path,) = cache.iterdir()
    written = path.stat().st_mtime_ns
    assert measured(bundle) == first
    assert [path] == list(cache.iterdir()) and path.stat().st_mtime_ns == written


def test_threads_operators_and_quota_have_files_of_their_own(
    bundle: Bundle, tiny_bundle: Callable[[str], Bundle], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(bundle)
    assert measured(bundle, threads=2).threads == 2
    measured(tiny_bundle("bert-r10-2"))
    assert len(list(cache.iterdir())) == 3
    asked: list[int] = []
    monkeypatch.setattr(machine_speed, "_measure", lambda _, threads, __: (asked.append(threads), (None, "asked"))[1])
    assert calibrate(bundle, 1, QUIET, 1024.0) is not None and asked == []
    monkeypatch.setattr(machine_speed, "cpu_share", lambda: CpuShare((0, 1), 2, 0.5))
    assert machine_name().endswith(", 2 cores, quota 0.5 of a core")
    assert calibrate(bundle, 1, QUIET, 1024.0) is None and asked == [1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:100],
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: json.dumps({**json.loads(text), "machine": "another"}),
        lambda text: json.dumps({**json.loads(text), "measured": {"kernels": {}}}),
        lambda text: text.replace('"node_seconds": ', '"node_seconds": -'),
    ],
)
def test_a_damaged_file_is_measured_again(damage: Callable[[str], str], bundle: Bundle, cache: Path) -> None:
    measured(bundle)
    (path,) = cache.iterdir()
    damaged = damage(path.read_text())
    path.write_text(damaged)
    found = measured(bundle)
    assert found.node_seconds >= 0 and 0 < found.mask_byte_seconds < 1e-5
    assert path.read_text() != damaged and measured(bundle) == found


def test_without_a_place_to_keep_it_times_are_measured_all_the_same(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.joinpath("edge-far").write_text("a file where the directory should be")
    assert measured(bundle).kernels
    for name in ("XDG_CACHE_HOME", "HOME", "CACHE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    assert measured(bundle).kernels


def test_a_probe_that_fails_leaves_times_out_and_says_why(
    bundle: Bundle, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(bundle.root, root)
    opened = open_bundle(root)
    (root / "portable/probe.onnx").write_bytes(b"no graph")
    assert calibrate(opened, 1, Console(quiet=True), 1024.0) is None
    assert "no times are predicted: the probe failed: " in capsys.readouterr().err
    assert not cache.exists()


def test_too_little_room_is_said(bundle: Bundle, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(bundle, 1, Console(quiet=True), 20.0) is None
    assert "20 MiB are too few to measure the machine's speed" in capsys.readouterr().err
    assert not cache.exists()
