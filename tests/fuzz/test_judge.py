"""The judge and its watchers see what they are there for; without this, silence of the fuzzer would mean nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from edge_far.device.board.memory import resident_set
from edge_far.errors import DataError
from tests.fuzz.judge import Bounds, call, problem_of, run
from tests.fuzz.mutate import mutate_bytes, mutate_json, mutate_safetensors, pack_safetensors


def judged(function: Callable[[], Any], place: Path, **bounds: Any) -> str | None:
    limits = Bounds(frozenset({0, 65}), (place / "out",), **bounds)
    return problem_of(call("work", function, limits), limits)


def fail(message: str) -> None:
    raise DataError(message, where="here")


def for_ever(place: Path) -> None:
    while True:
        pass


def test_a_right_ending(tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "file").write_text("x")
        (tmp_path / ".out.1.tmp").write_text("x")
        print("warning: something", file=sys.stderr)

    assert judged(work, tmp_path) is None
    assert judged(lambda: fail("wrong"), tmp_path) is None


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda place: {}["key"], "KeyError at tests/fuzz/test_judge.py:"),
        (lambda place: sys.exit(1), "SystemExit"),
        (lambda place: print("warning: one\ntwo", file=sys.stderr), "more than one line on stderr"),
        (lambda place: print("warning: \x1b[31mred", file=sys.stderr), "a control character"),
        (lambda place: print("a message", file=sys.stderr), "more than one line on stderr"),
        (lambda place: np.float32(1e38) * np.float32(1e38), "more than one line on stderr"),  # a RuntimeWarning
        (lambda place: print(json.dumps(float("nan"))), "not one JSON document"),
        (lambda place: (place / "foreign").write_text("x"), "wrote to"),
        (lambda place: (place / "outside").mkdir(), "wrote to"),
        (lambda place: time.sleep(5), "did not end within 0.05 s"),
        (for_ever, "did not end within 0.05 s"),
    ],
)
def test_a_wrong_ending(work: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    assert says in (judged(lambda: work(tmp_path), tmp_path, seconds=0.05, mib=20.0) or "")


def test_more_memory_than_allowed(tmp_path: Path) -> None:
    """More than this process ever took: memory that it freed before would not count."""
    size = (int(resident_set().peak_mib) + 40) << 20
    assert "MiB of memory" in str(judged(lambda: np.ones(size, np.uint8), tmp_path, seconds=20.0, mib=20.0))


def test_another_exit_code(tmp_path: Path) -> None:
    bounds = Bounds(frozenset({0}), ())
    ending = run(["profiles", "check", tmp_path / "none.yaml"], bounds)
    assert "exit code 66" in str(problem_of(ending, bounds))
    assert problem_of(ending, Bounds(frozenset({66}), ())) is None
    ending = run(["predict", "--help"], bounds)
    assert "_Answered" in str(problem_of(ending, bounds))


def test_what_native_code_prints_is_seen(tmp_path: Path) -> None:
    assert "more than one line" in str(judged(lambda: os.write(2, b"[E:onnxruntime] no\n"), tmp_path))


def test_variants_are_decided_by_the_seed() -> None:
    good = json.dumps({"a": [1, 2.5, {"b": "text"}], "c": None}).encode()
    arrays = pack_safetensors(b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8))
    for mutate, document in ((mutate_json, good), (mutate_bytes, good), (mutate_safetensors, arrays)):
        first = [mutate(document, Random(seed)) for seed in range(200)]
        assert first == [mutate(document, Random(seed)) for seed in range(200)]
        assert len(set(first)) > 100 and sum(variant != document for variant in first) > 180
