"""Checkpoints: complete or absent, verified, at most two of them; one process a run."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.device.run import checkpoint
from edge_far.device.run.checkpoint import KEPT_CHECKPOINTS, RunDirectory
from edge_far.device.run.training_state import TrainingState
from edge_far.errors import BundleError, Deferred, StorageError
from tests.file_systems import LowerLayer, refuse_fsync

STATE = TrainingState(step=3, examples=12, seconds=0.1, divisor=2, best_score=1 / 3, smoothed_loss=0.1 + 0.2)


def arrays(seed: int) -> dict[str, np.ndarray]:
    return {"weight": np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    directory.prepare()
    return directory


def save(run: RunDirectory, step: int) -> None:
    run.save(replace(STATE, step=step), arrays(step), arrays(100 + step))


def steps(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_saved_is_loaded(run: RunDirectory) -> None:
    assert run.load_latest() is None
    save(run, 3)
    found = RunDirectory(run.root).load_latest()
    assert found is not None and found.state == STATE and found.damaged == 0
    np.testing.assert_array_equal(read_arrays(found.learners)["weight"], arrays(3)["weight"])
    np.testing.assert_array_equal(read_arrays(found.optimizer)["weight"], arrays(103)["weight"])


def test_the_newest_two_are_kept(run: RunDirectory) -> None:
    for step in (1, 2, 30, 200):
        save(run, step)
    assert KEPT_CHECKPOINTS == 2 and steps(run) == ["step-00000030", "step-00000200"]
    found = run.load_latest()
    assert found is not None and found.state.step == 200


def test_a_second_save_of_a_step_changes_the_state_alone(run: RunDirectory) -> None:
    save(run, 3)
    before = (run.checkpoints / "step-00000003" / "learners.safetensors").stat()
    run.save(replace(STATE, evaluated=3), arrays(3), arrays(103))
    after = (run.checkpoints / "step-00000003" / "learners.safetensors").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    found = RunDirectory(run.root).load_latest()
    assert found is not None and found.state.evaluated == 3


@pytest.mark.parametrize("name", ["learners.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_one_is_passed_over_and_written_anew(name: str, run: RunDirectory) -> None:
    for step in (1, 2):
        save(run, step)
    damage(run.checkpoints / "step-00000002" / name)
    again = RunDirectory(run.root)
    found = again.load_latest()
    assert found is not None and found.state.step == 1 and found.damaged == 1
    assert steps(run) == ["step-00000001"]
    save(again, 2)
    found = RunDirectory(run.root).load_latest()
    assert found is not None and found.state.step == 2


@pytest.mark.parametrize("name", ["learners.safetensors", "state.json"])
def test_a_missing_file_is_damage(name: str, run: RunDirectory) -> None:
    save(run, 1)
    (run.checkpoints / "step-00000001" / name).unlink()
    with pytest.raises(BundleError, match="the checkpoint is damaged"):
        run.load_latest()
    assert steps(run) == ["step-00000001"], "nothing is removed when nothing better is there"


@pytest.mark.parametrize("content", ["", "{}", "[]", "7", '{"checksum": 1}'])
def test_state_that_is_no_state(content: str, run: RunDirectory) -> None:
    save(run, 1)
    (run.checkpoints / "step-00000001" / "state.json").write_text(content)
    with pytest.raises(BundleError):
        run.load_latest()


def test_a_changed_number_in_the_state_is_noticed(run: RunDirectory) -> None:
    save(run, 1)
    path = run.checkpoints / "step-00000001" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "divisor": 1}))
    with pytest.raises(BundleError):
        run.load_latest()


def test_leftovers_of_a_killed_process_are_cleared(run: RunDirectory) -> None:
    save(run, 1)
    (run.checkpoints / ".step-00000002.77-abcd.tmp").mkdir()
    (run.checkpoints / ".step-00000002.77-abcd.tmp" / "learners.safetensors").write_text("half")
    (run.root / ".result.json.77-abcd.tmp").write_text("half")
    (run.checkpoints / "step-00000001").rename(run.checkpoints / ".step-00000001.old")  # replaced in two renames
    save(run, 3)
    (run.checkpoints / "step-00000003").rename(run.checkpoints / ".step-00000003.copy")  # of one that was being removed
    (run.checkpoints / "step-00000003").mkdir()
    (run.root / ".edge-far-trial.77-abcd.tmp").mkdir()
    run.prepare()
    assert steps(run) == ["step-00000001", "step-00000003"] and not list(run.root.rglob(".*"))
    loaded = run.load_latest()
    assert loaded is not None and (loaded.state.step, loaded.damaged) == (3, 0)


def test_a_checkpoint_that_cannot_be_renamed_is_replaced(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    save(run, 1)
    layer = LowerLayer(monkeypatch)
    layer.add(run.checkpoints / "step-00000001")
    save(RunDirectory(run.root), 1)
    assert layer.lower == set() and steps(run) == ["step-00000001"] and not list(run.checkpoints.glob(".*"))
    assert run.load_latest() is not None


def test_the_storage_is_tried_where_the_run_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    for root in (tmp_path / "run", tmp_path / "new" / "deep" / "run", Path("run")):
        RunDirectory(root).try_storage()
    assert not list((tmp_path / "run").iterdir()) and not (tmp_path / "new").exists()
    refuse_fsync(monkeypatch, errno.EIO)
    with pytest.raises(StorageError, match="Input/output error"):
        RunDirectory(tmp_path / "run").try_storage()
    assert RunDirectory(tmp_path / "run").unused


def test_unused(tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert RunDirectory(root).unused
    root.mkdir()
    assert RunDirectory(root).unused
    (root / ".run.json.77-abcd.tmp").write_text("half")
    assert RunDirectory(root).unused
    (root / "notes").write_text("mine")
    assert not RunDirectory(root).unused
    assert not RunDirectory(root / "notes").unused


def test_one_process_a_run(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path / "new" / "run"), RunDirectory(tmp_path / "new" / "run")
    with first.locked(), pytest.raises(Deferred, match="another process is training this run"), second.locked():
        pass
    with second.locked():
        pass


def test_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError), RunDirectory(tmp_path / "file" / "run").locked():
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [("divisor", 0), ("step", "one"), ("smoothed_loss", -1.0), ("evaluated", 2**64), ("step", 2), ("surprise", 1)],
)
def test_a_state_that_cannot_be_is_damage_though_its_checksum_is_right(
    name: str, value: object, run: RunDirectory
) -> None:
    save(run, 1)
    path = run.checkpoints / "step-00000001" / "state.json"
    body = json.loads(path.read_bytes()) | {name: value}
    del body["checksum"]
    path.write_text(json.dumps({**body, "checksum": checkpoint._checksum(body)}))
    with pytest.raises(BundleError, match="the checkpoint is damaged"):
        run.load_latest()


@pytest.mark.parametrize("content", [None, "", '{"step": 1}', "[" * 100_000, "[]"])
def test_damaged_metrics_of_the_best_are_told_when_the_run_is_resumed(content: str | None, run: RunDirectory) -> None:
    metrics = {"step": 1, "examples": 9, "loss": 1.0, "accuracy": 0.5, "macro_f1": 0.5, "matthews": 0.1}
    run.keep_best(arrays(1), metrics)
    run.save(replace(STATE, step=1, best_step=1, best_score=0.5), arrays(1), arrays(101))
    assert RunDirectory(run.root).load_latest() is not None
    (run.best / "metrics.json").unlink()
    if content is not None:
        (run.best / "metrics.json").write_text(content)
    with pytest.raises(BundleError) as raised:
        RunDirectory(run.root).load_latest()
    assert raised.value.where == str(run.best / "metrics.json")


def test_a_state_beyond_the_end_is_of_another_run(run: RunDirectory) -> None:
    save(run, 7)
    found = run.load_latest()
    assert found is not None
    found.refuse_later_step(7)
    with pytest.raises(BundleError, match="of step 7, and this run has 6"):
        found.refuse_later_step(6)
