"""A request for a cycle: taken once, answered to the one who asked, never in a way that could keep the daemon busy."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge_far.daemon.intake.requests import REQUEST, Requests, ask, read_answer, take_back
from edge_far.errors import InputMissing


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    (tmp_path / "spool").mkdir()
    return Requests(tmp_path / "spool", tmp_path / "answer.json")


def test_a_request_is_taken_once_and_answered_by_its_id(requests: Requests, tmp_path: Path) -> None:
    assert not requests.waiting
    id = ask(tmp_path / "spool")
    assert requests.waiting and stat.S_IMODE((tmp_path / "spool" / REQUEST).stat().st_mode) == 0o640
    requests.take()
    assert not requests.waiting and read_answer(tmp_path / "answer.json", id) is None
    requests.answer(deferred="too hot")
    requests.answer(cycle=7)  # nobody asked again
    found = read_answer(tmp_path / "answer.json", id)
    assert found is not None and (found.cycle, found.deferred) == (None, "too hot")
    assert stat.S_IMODE((tmp_path / "answer.json").stat().st_mode) == 0o644
    assert read_answer(tmp_path / "answer.json", "another") is None


def test_the_last_of_two_who_ask_is_answered(requests: Requests, tmp_path: Path) -> None:
    first, second = ask(tmp_path / "spool"), ask(tmp_path / "spool")
    assert not take_back(tmp_path / "spool", first)
    requests.take()
    requests.answer(cycle=1)
    assert read_answer(tmp_path / "answer.json", first) is None
    assert read_answer(tmp_path / "answer.json", second) is not None


def test_a_request_that_is_taken_back_causes_nothing(requests: Requests, tmp_path: Path) -> None:
    assert take_back(tmp_path / "spool", ask(tmp_path / "spool"))
    assert not requests.waiting and list((tmp_path / "spool").iterdir()) == []


def test_what_is_no_file_of_its_own_is_no_request(requests: Requests, tmp_path: Path) -> None:
    place, secret = tmp_path / "spool" / REQUEST, tmp_path / "secret"
    secret.write_text("secret")
    place.symlink_to(secret)
    assert not requests.waiting
    place.unlink()
    place.mkdir()
    assert not requests.waiting
    place.rmdir()
    os.mkfifo(place)
    assert not requests.waiting
    place.unlink()
    place.write_bytes(b"\xff\n" * 1000)
    requests.take()
    requests.answer(cycle=2)
    assert read_answer(tmp_path / "answer.json", "unnamed") is not None and not place.exists()


def test_a_request_that_cannot_be_removed_is_asked_once(
    requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(tmp_path / "spool")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    requests.take()
    assert not requests.waiting


def test_a_missing_spool_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="spool directory does not exist"):
        ask(tmp_path / "nowhere")
