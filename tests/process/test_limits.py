"""Threads that do not start: known before ONNX Runtime waits for them for ever, and told as what it is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edge_far.errors import Unavailable
from edge_far.process.failures import as_error
from edge_far.process.limits import refuse_threads, threads_that_start
from edge_far.process.rust import RustFailure
from edge_far.texts import tokenizer_file


def allow(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process start so many threads and no more."""
    genuine, left = threading.Thread.start, [threads]

    def start(thread: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        genuine(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


def test_all_that_were_started_have_ended() -> None:
    before = threading.active_count()
    assert threads_that_start(5) == 5 and threading.active_count() == before


@pytest.mark.parametrize(("allowed", "count"), [(0, 1), (3, 4)])
def test_enough(allowed: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(allowed, monkeypatch)
    refuse_threads(count)


def test_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(2, monkeypatch)
    with pytest.raises(Unavailable, match="may have 3 threads only, and 4 are needed") as raised:
        refuse_threads(4)
    assert raised.value.where == "--threads" and "TasksMax=" in str(raised.value.hint)


def test_the_interrupt_of_a_library_that_got_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_error(KeyboardInterrupt()).exit_code == 130
    allow(0, monkeypatch)
    told = as_error(KeyboardInterrupt())
    assert told.exit_code == 69 and told.message == "this process may have one thread only"


def test_a_tokenizer_without_threads_is_not_damaged(tmp_path: Path) -> None:
    class Starved:
        def encode_batch_fast(self, *_: object, **__: object) -> list[object]:
            raise RustFailure("The global thread pool has not been initialized.: ThreadPoolBuildError { ... }")

    with pytest.raises(Unavailable, match="the tokenizer's threads do not start"):
        tokenizer_file.tokenize(Starved(), ["a"])  # type: ignore[arg-type]
