"""A child that dies before its first step says nothing about the examples: all train after the repair."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_far.daemon.children.child_end import ChildEnd, Progress
from tests.daemon.field import Field, environment

RUNTIME = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
# Python runs this at the start of every process; only the trainer minds.
TRAINER = "import os, signal, sys, time\nif 'train' in sys.orig_argv: {}\n"


class Broken:
    """A folder that is first among the places of packages, for all that the device runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        places = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def by(self, name: str, content: str) -> None:
        self.repair()
        (self._folder / name).parent.mkdir(parents=True)
        (self._folder / name).write_text(content)

    def repair(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broken:
    return Broken(tmp_path / "broken", monkeypatch)


def check(field: Field) -> int:
    """Return the exit code of `status --check`."""
    return subprocess.run(
        field.command("status", "--check"), capture_output=True, check=False, env=environment()
    ).returncode


@pytest.mark.device
def test_nothing_is_set_aside_and_all_trains_after_the_repair(
    field: Field, broken: Broken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken.by("onnxruntime/__init__.py", RUNTIME)
    field.feed(350)
    says = "ONNX Runtime does not start here: its import is killed by SIGILL"
    assert says in field.once(status=69)["error"]["message"]  # not even the factory's release can be made
    broken.repair()
    profile = field.profile.read_text()
    field.profile.write_text(profile.replace("min_new_examples: 10}", "min_new_examples: 9999}"))
    field.once(status=75)  # makes the factory's release, and no more
    field.profile.write_text(profile)
    for name, content, told in (
        ("onnxruntime/__init__.py", RUNTIME, says),
        (
            "sitecustomize.py",
            TRAINER.format("os.kill(os.getpid(), 9)"),
            "before its first step, was killed",
        ),
    ):
        broken.by(name, content)
        for _ in range(2):
            assert told in field.once(status=69)["error"]["message"]
        status = field.status()
        assert status["state"] == "broken" and told in status["summary"]
        assert status["examples"]["set_aside"] == 0 and status["cycle_under_way"]["deaths"] == []
    assert check(field) == 69
    broken.repair()
    for name in ("tokenizers", "onnxruntime", "safetensors"):  # a child does not look for packages where it is run
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the package of that name')")
    monkeypatch.chdir(tmp_path)
    cycle = field.once()["cycle"]
    assert cycle["outcome"] == "released" and "set_aside" not in cycle["details"]
    status = field.status()
    assert (status["state"], status["examples"]["set_aside"], check(field)) == ("healthy", 0, 0)
    assert status["examples"]["new_examples"] == 0 and cycle["details"]["examples"]["train.jsonl"] > 250


@pytest.mark.device
def test_a_trainer_that_hangs_before_its_first_step_waits_for_a_better_day(field: Field, broken: Broken) -> None:
    """It may be too large or too slow, so a smaller plan is tried, again and again."""
    field.feed(350)
    broken.by("sitecustomize.py", TRAINER.format("time.sleep(600)"))
    deferred = field.once("--stall-seconds", "1", status=75)["deferred"]
    assert "does not get to its first step" in deferred and "made no progress and was killed" in deferred
    status = field.status()
    assert status["state"] == "deferred" and "does not get to its first step" in status["summary"]
    assert status["examples"]["set_aside"] == 0
    broken.repair()
    cycle = field.once()["cycle"]
    assert cycle["outcome"] == "released" and "set_aside" not in cycle["details"]


@pytest.mark.parametrize(
    ("status", "broken"),
    [(69, True), (1, True), (-signal.SIGILL, True), (70, False), (65, False), (75, False), (-signal.SIGKILL, False)],
)
def test_which_ends_speak_of_the_environment(status: int, broken: bool) -> None:
    assert ChildEnd(status, 1.0, Progress(step=3)).broken_environment is broken
    assert not ChildEnd(status, 1.0, Progress(), stopped="asked to stop").broken_environment


def test_a_broken_environment_is_told_in_the_childs_own_words() -> None:
    error = {"message": "NumPy does not start here: x", "where": "/a/numpy", "hint": "install it again"}
    told = ChildEnd(69, 1.0, Progress(), error=error).unavailable("the trainer")
    assert str(told) == "/a/numpy: NumPy does not start here: x (install it again)"
    told = ChildEnd(-signal.SIGILL, 1.0, Progress()).unavailable("'merge'")
    assert str(told).startswith("'merge' was killed by signal 4 (SIGILL) (the examples are kept")


def test_a_python_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_far.daemon.children.supervisor import Supervisor
    from edge_far.daemon.notify import Notifier
    from edge_far.errors import Unavailable

    monkeypatch.setattr("edge_far.daemon.children.supervisor.module_command", lambda name: [str(tmp_path / "python")])
    with pytest.raises(Unavailable, match="Python does not start here: No such file or directory"):
        Supervisor(Notifier(environment={})).run(["merge"], tmp_path / "merge")


@pytest.mark.parametrize("found", ["in the working directory", "installed"])
def test_a_checkout_that_is_run_in_place_is_found_by_its_children(
    found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edge_far
    from edge_far.process.children import child_environment, module_command

    root = str(Path(edge_far.__file__).parents[1])
    monkeypatch.setattr(sys, "path", [root if found == "in the working directory" else str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", "/else/where")
    expected = f"{root}{os.pathsep}/else/where" if found == "in the working directory" else "/else/where"
    assert child_environment()["PYTHONPATH"] == expected
    assert module_command("edge_far.cli") == [sys.executable, "-P", "-m", "edge_far.cli"]
