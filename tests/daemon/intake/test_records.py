"""One line of a spool file: what it says, or one sentence why it cannot be used."""

from __future__ import annotations

import pytest

from edge_far.daemon.intake.records import Feedback, LabelledExample, Prediction, RecordError, RecordReader
from edge_far.texts.data import Example

READER = RecordReader(["on", "off", "3"])


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'{"text": "a", "label": "on"}', LabelledExample(Example("a", None, "on"))),
        (b'\xef\xbb\xbf{"text": "a", "text_pair": "b", "label": 3}', LabelledExample(Example("a", "b", "3"))),
        (b'{"id": "7", "text": "a", "label": "on", "extra": 1}', LabelledExample(Example("a", None, "on"))),
        (b'{"id": 7, "text": "a", "prediction": "on"}', Prediction("7", Example("a"), "on")),
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
