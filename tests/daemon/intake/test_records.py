"""One line of a spool file: what it says, or one sentence why it cannot be used."""

from __future__ import annotations

import json

import pytest

from edge_far.daemon.intake.records import Feedback, LabelledExample, Prediction, RecordError, RecordReader
from edge_far.texts.data import Example
from edge_far.texts.places import OpenNames

READER = RecordReader(["on", "off", "3"])


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'{"text": "a", "label": "on"}', LabelledExample(Example("a", None, "on"))),
        (b'\xef\xbb\xbf{"text": "a", "text_pair": "b", "label": 3}', LabelledExample(Example("a", "b", "3"))),
        (b'{"id": "7", "text": "a", "label": "on", "extra": 1}', LabelledExample(Example("a", None, "on"))),
        (b'{"id": 7, "text": "a", "prediction": "on"}', Prediction("7", Example("a"), "on")),
        (b'{"id": "7", "text": "a", "prediction": " on"}', Prediction("7", Example("a"), "on")),
        (b'{"text": "a", "label": "on "}', LabelledExample(Example("a", None, "on"))),
        (b'{"id": "7", "text": "a"}', Prediction("7", Example("a"), None)),
        (b'{"id": "7", "label": "off"}', Feedback("7", "off", None)),
        (b'{"id": "7", "feedback": "correct"}', Feedback("7", None, True)),
        (b'{"id": "7", "feedback": "wrong", "label": "on"}', Feedback("7", "on", False)),
        (b"   ", None),
        (b"", None),
    ],
)
def test_good_lines(line: bytes, record: object) -> None:
    assert READER.read(line) == record


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "broken JSON at column 2"),
        (b'{"text": "a", "label": "on"', "broken JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "number too long"),
        (b"[1]", "an array instead of an object"),
        (b'{"id": "7", "feedback": "wrong", "feedback": "correct"}', "the field 'feedback' is there twice"),
        (b'{"text": "a", "label": "on"}\r{"text": "b", "label": "on"}', "carriage return alone"),
        ('{"text": "a", "label": "on"}'.encode("utf-16-le"), "NUL"),
        (b"\xff\xfe{", "not UTF-8: byte 0xff at position 1"),
        (b'{"text": "a\xe4", "label": "on"}', "not UTF-8: byte 0xe4 at position 12"),
        (b'{"text": "a", "label": "on"}\0', "NUL"),
        (b'{"text": "a", "label": "onn"}', "unknown label 'onn' .did you mean 'on'"),
        (b'{"text": "a"}', "no label"),
        (b'{"text": " ", "label": "on"}', "'text' is empty"),
        (b'{"text": ["a"], "label": "on"}', "'text' is an array"),
        (b'{"text": "\\ud800", "label": "on"}', "surrogate"),
        (b'{"txt": "a", "label": "on"}', "did you mean 'text'"),
        (b'{"id": "7"}', "an id without text, label or feedback"),
        (b'{"id": "7", "feedback": "perhaps"}', "neither 'correct' nor 'wrong'"),
        (b'{"id": "7", "label": "onn"}', "unknown label"),
        (b'{"id": "7", "text": "a", "prediction": "onn"}', "unknown label"),
        (b'{"id": "", "text": "a"}', "'id' is not a printable text"),
        (b'{"id": "a\\u001b[2J", "text": "a"}', "'id' is not a printable text"),
        (b'{"id": true, "text": "a"}', "'id' is not a printable text"),
    ],
)
def test_bad_lines(line: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        READER.read(line)


@pytest.mark.parametrize("name", ["x" * 201, "x\n[ERROR] no more", "\x1b[2J", "\u202egood"])
def test_no_new_label_is_longer_than_a_name_or_steers_a_terminal(name: str) -> None:
    reader = RecordReader(OpenNames(["on", "y" * 300, "reserved-0"]))
    for record in ({"text": "a", "label": name}, {"id": "7", "label": name}):
        with pytest.raises(RecordError, match="is not a printable text of 1 to 200 characters") as raised:
            reader.read(json.dumps(record).encode())
        assert str(raised.value).isprintable() and len(str(raised.value)) < 200
    for known in ("x" * 200, "y" * 300):  # the bundle's own labels are as they are
        assert reader.read(json.dumps({"id": "7", "label": known}).encode()) == Feedback("7", known, None)
