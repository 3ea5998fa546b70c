"""`edge_far.Model`: right answers from every thread while releases change, and feedback that the daemon takes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_far import Model, cli
from edge_far.bundles.bundle import Bundle
from edge_far.daemon.intake.ingest import Ingestion
from edge_far.daemon.intake.spool import add
from edge_far.daemon.store.examples import Store
from edge_far.device import file_model
from edge_far.errors import DataError, InputMissing, UsageError
from edge_far.storage import sha256_of
from tests.application.releases import Service

TEXT = "w1 w2 w3"
RELEASES = 20
THREADS = 4
CALLS = 10_000


def predicted(model: Path, text: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what `edge-far predict` says; test_predict.py compares that with torch."""
    capsys.readouterr()
    assert cli.main(["predict", str(model), text, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["predictions"][0]
    return found


def test_ten_thousand_calls_from_four_threads_through_twenty_releases(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [predicted(model, TEXT, capsys) for model in service.models]
    assert abs(expected[0]["probability"] - expected[1]["probability"]) > 1e-3
    model = Model(service.link, spool=service.spool, threads=1)
    which = {model.release: 0}
    answers: list[list[Any]] = [[] for _ in range(THREADS)]
    changed = threading.Event()

    def ask(own: list[Any]) -> None:
        while len(own) < CALLS // THREADS or not changed.is_set():
            own.append(model.predict(TEXT))

    threads = [threading.Thread(target=ask, args=(own,)) for own in answers]
    for thread in threads:
        thread.start()
    for number in range(1, RELEASES + 1):
        new = service.release(number % 2)
        which[new] = number % 2
        while not any(own and own[-1].release == new for own in answers) and any(t.is_alive() for t in threads):
            threading.Event().wait(0.001)
    changed.set()
    for thread in threads:
        thread.join()
    told = [answer for own in answers for answer in own]
    assert len(told) >= CALLS  # a call that failed ends its thread
    assert len({answer.id for answer in told}) == len(told)
    # Each was in use, but for the first, which may be followed before a thread has asked.
    assert set(which) - {answer.release for answer in told} <= {next(iter(which))}
    for answer in told:
        right = expected[which[answer.release]]
        assert (answer.label, answer.probability) == (right["label"], pytest.approx(right["probability"], abs=2e-6))
    assert model.predict(TEXT).release == service.releases.current_id() == list(which)[-1]


def test_the_next_call_is_answered_by_the_new_release(service: Service) -> None:
    model = Model(service.link, threads=1)
    first = model.predict(TEXT)
    new = service.release(1)
    second = model.predict(TEXT)
    assert first.release == "000000-" + first.release[7:] and second.release == new == model.release
    assert first.probability != second.probability
    service.releases.rollback()
    assert model.predict(TEXT).release == first.release


@pytest.mark.parametrize("damage", ["a changed byte", "no weights", "no manifest", "leads nowhere"])
def test_a_broken_release_is_told_once_and_the_old_one_goes_on(
    service: Service, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model(service.link, threads=1)
    first = model.predict(TEXT)
    broken = service.releases.path(service.release(1))
    weights = broken / "weights.bin"
    if damage == "a changed byte":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "leads nowhere":
        shutil.rmtree(broken)
    else:
        (weights if damage == "no weights" else broken / "manifest.json").unlink()
    caplog.set_level(logging.INFO, "edge_far.application")
    for _ in range(3):
        answer = model.predict(TEXT)
        assert (answer.release, answer.probability) == (first.release, first.probability)
    (told,) = caplog.records
    assert told.levelno == logging.WARNING and f"release {first.release} stays in use" in told.getMessage()
    with pytest.raises((DataError, InputMissing)):
        Model(service.link, threads=1)
    good = service.release(1)
    assert model.predict(TEXT).release == good


def test_a_release_of_the_service_is_hashed_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []

    def noting(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(file_model, "sha256_of", noting)
    assert Model(service.link, spool=service.spool).predict(TEXT).label and not hashed, "its manifest was compared"
    assert Model(service.models[0], spool=service.spool).predict(TEXT).label
    assert [path.name for path in hashed] == ["model.onnx", "weights.bin", "tokenizer.json"], "release.json was"


def test_a_merged_model_and_a_copied_release_are_models_too(service: Service, tmp_path: Path) -> None:
    merged = Model(service.models[0], threads=1).predict(TEXT)
    shutil.copytree(service.link, tmp_path / "copy")
    copied = Model(tmp_path / "copy", threads=1).predict(TEXT)
    current = Model(service.link, threads=1).predict(TEXT)
    assert merged.release == "a" and copied.release == current.release == service.releases.current_id()
    assert merged.probability == copied.probability == current.probability
    (tmp_path / "copy" / "labels.json").write_text('["a", "b", "c", "d", "e"]')
    with pytest.raises(DataError, match=r"has changed since the release was made|bytes instead of"):
        Model(tmp_path / "copy")


def test_what_is_no_model_is_one_line(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no directory of a model"):
        Model(tmp_path / "nothing")
    with pytest.raises(InputMissing, match=r"is no released model \(a bundle becomes one by 'edge-far merge'\)"):
        Model(tiny_bundle("tiny-fp32").root)


def test_blank_long_and_unreadable_texts(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(service.link, threads=1)
    blank = model.predict(" \t")
    assert (blank.label, blank.probability) == (None, None)
    with pytest.raises(DataError, match="there is no label"):
        model.feedback(blank.id, True)
    long = " ".join(["w1", "w2"] * 1000)
    assert model.predict(long).label == predicted(service.models[0], long, capsys)["label"]
    assert (
        model.predict("w1", "w2").probability != model.predict("w1").probability == model.predict("w1", " ").probability
    )
    for text, wrong in ((b"w1", "is a bytes, not a text"), ("\ud800", "half of a surrogate pair")):
        with pytest.raises(DataError, match=wrong):
            model.predict(text)  # type: ignore[arg-type]


def test_feedback_reaches_the_store_of_the_daemon(service: Service, tmp_path: Path) -> None:
    model = Model(service.link, spool=service.spool, threads=1)
    right, wrong, pair = model.predict("w1 w2"), model.predict("w3"), model.predict("w4", "w5")
    model.feedback(right.id, True)
    model.feedback(wrong.id, "label-3")
    model.feedback(pair.id, "label-2")
    service.release(1)
    model.predict(TEXT)
    path = model.feedback(wrong.id, "label-4")  # answered by the release before; the last one counts
    assert path.parent == service.spool and path.stat().st_mode & 0o777 == 0o640
    assert not list(service.spool.glob(".*"))
    store = Store(tmp_path / "store.sqlite3")
    report = Ingestion(service.spool, store, labels=[f"label-{number}" for number in range(5)]).run()
    found = {(row.example.text, row.example.text_pair): row.example.label for row in store.examples(held_out=False)}
    found |= {(row.example.text, row.example.text_pair): row.example.label for row in store.examples(held_out=True)}
    store.close()
    assert (report.new, report.corrected, report.quarantined) == (3, 1, 0)
    assert found == {("w1 w2", None): right.label, ("w3", None): "label-4", ("w4", "w5"): "label-2"}


def test_feedback_that_cannot_be(service: Service) -> None:
    model = Model(service.link, spool=service.spool, threads=1, remembered=2)
    ids = [model.predict(f"w{number}").id for number in range(3)]
    for id in (ids[0], "never"):
        with pytest.raises(DataError, match="no answer with the id"):
            model.feedback(id, "label-1")
    for label, wrong in (
        (False, "is a label or True"),
        (None, "there is no label"),
        (1.5, "a string or a whole number"),
    ):
        with pytest.raises(DataError, match=wrong):
            model.feedback(ids[1], label)
    assert service.spooled == []
    without = Model(service.link, spool=service.spool / "no", threads=1)
    with pytest.raises(InputMissing, match="spool directory does not exist"):
        without.feedback(without.predict("w1").id, "label-1")


@pytest.mark.parametrize(
    ("bundle", "label", "spooled"),
    [
        ("bert-r40-regress-dropout", 3.5, "3.5"),
        ("bert-head-multilabel-mean", ("label-1", "label-0"), ["label-0", "label-1"]),
    ],
)
def test_other_tasks_answer_and_learn_in_their_own_form(
    bundle: str,
    label: Any,
    spooled: Any,
    tiny_bundle: Callable[[str], Bundle],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = tmp_path / "model"
    assert cli.main(["merge", str(tiny_bundle(bundle).root), "--out", str(directory)]) == 0
    expected = predicted(directory, TEXT, capsys)
    model = Model(directory, spool=tmp_path, threads=1)
    answer = model.predict(TEXT)
    if "value" in expected:
        assert answer.label == pytest.approx(expected["value"], rel=1e-5) and answer.probability is None
    else:
        assert answer.label == tuple(expected["labels"]) and answer.probability == tuple(expected["probabilities"])
    record = json.loads(model.feedback(answer.id, label).read_bytes())
    assert (
        record["text"] == TEXT
        and (json.loads(record["label"]) if isinstance(spooled, list) else record["label"]) == spooled
    )
    assert json.loads(model.feedback(answer.id, True).read_bytes())["id"] == answer.id


def test_the_streams_of_an_application_are_left_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What our commands do to drop the words of native code would take away what other threads write meanwhile."""

    def refuse(*_: object) -> None:
        raise AssertionError("a stream was redirected")

    with monkeypatch.context() as patched:
        patched.setattr(os, "dup2", refuse)
        label = Model(service.link, threads=1).predict(" ".join(["w1"] * 1000)).label
    assert label is not None


def test_the_package_is_imported_without_numpy() -> None:
    code = "import sys, edge_far; print(sorted({'numpy', 'onnxruntime', 'tokenizers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_empty_path_is_not_the_working_directory(service: Service) -> None:
    for directory, spool, named in ((service.link, "", "spool"), ("", service.spool, "directory")):
        with pytest.raises(UsageError, match=f"{named}: is empty"):
            Model(directory, spool=spool)
    with pytest.raises(UsageError, match="spool: is empty"):
        add(TEXT, "label", spool="")  # type: ignore[arg-type]  # an application may give a string


@pytest.mark.parametrize("wrong", ["x", 1.5, True, -1])
def test_a_count_that_is_none_is_one_line(service: Service, wrong: Any) -> None:
    for name in ("remembered", "threads"):
        with pytest.raises(UsageError, match=f"{name}: must be a whole number from"):
            Model(service.link, **{name: wrong})


@pytest.mark.parametrize("name", ["labels.json", "weights.bin"])
def test_predict_refuses_a_damaged_release_as_the_model_does(
    name: str, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predicted(service.link, TEXT, capsys)
    path = service.link.resolve() / name
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0", b"1", 1) if name == "labels.json" else bytes([content[0] ^ 1]) + content[1:])
    assert path.read_bytes() != content
    with pytest.raises(DataError, match=f"{name}: content has changed"):
        Model(service.link, threads=1)
    assert cli.main(["predict", str(service.link), TEXT]) == 65
    assert f"{name}: content has changed since the release was made" in capsys.readouterr().err
