"""Documents of ours: the declared form is taken, everything else is one exception with the key and one line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from edge_far import json_file
from edge_far.json_file import Count, Damaged, Name, OneOf, Within, decode, decode_keys, parse_json, read_document
from edge_far.storage import write_json


@dataclass(frozen=True)
class Inner:
    size: Count
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: Name
    share: Annotated[float, Within(0, 1)]
    on: bool
    pairs: tuple[tuple[float, float], ...]
    shape: tuple[Count | str, ...]
    inner: Mapping[str, Inner | None]
    rest: Any = None
    word: Annotated[str, OneOf("on", "off")] = "on"


GOOD = {
    "name": "x",
    "share": 1,
    "on": True,
    "pairs": [[1, 2.5]],
    "shape": [3, "batch"],
    "inner": {"one": {"size": 7}, "none": None},
}


def test_the_declared_form_is_taken() -> None:
    found = decode(Outer, GOOD)
    assert found == Outer("x", 1.0, True, ((1.0, 2.5),), (3, "batch"), {"one": Inner(7), "none": None})
    assert isinstance(found.share, float)
    assert decode(Outer, GOOD | {"rest": [1, {"any": None}]}).rest == [1, {"any": None}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"surprise": 1}, "'top.surprise' is unknown"),
        ({"\x1b[31m": 1}, "is unknown"),
        ({"name": ""}, "'top.name' has a length of 0, not from 1 to 1000"),
        ({"name": 3}, "'top.name' is 3, not a text"),
        ({"name": "y" * 1001}, "'top.name' has a length of 1001"),
        ({"share": 1.5}, "'top.share' is 1.5, not from 0 to 1"),
        ({"share": True}, "'top.share' is true, not a number"),
        ({"share": float("nan")}, "'top.share' is nan"),
        ({"share": 10**400}, "'top.share' is a number beyond 64 bits"),
        ({"on": 1}, "'top.on' is 1, not true or false"),
        ({"pairs": [[1]]}, "'top.pairs[0]' has 1 items instead of 2"),
        ({"pairs": {}}, "'top.pairs' is an object, not a list"),
        ({"shape": [-1]}, "'top.shape[0]'"),
        ({"inner": {"one": {"size": 2**63}}}, "'top.inner['one'].size' is beyond 64 bits"),
        ({"inner": {"one": {"size": 1.0}}}, "not a whole number"),
        ({"inner": {"one": {}}}, "'top.inner['one'].size' is missing"),
        ({"inner": {"one": {"size": 1, "kind": "c"}}}, 'is "c", not a or b'),
        ({"word": "onNone"}, "'top.word' is \"onNone\", not on or off"),
        ({"word": None}, "'top.word' is null, not a text"),
        ({"inner": {"one": 3}}, "'top.inner['one']' is 3, not an object"),
    ],
)
def test_another_form_is_named_by_its_key(change: dict[str, Any], says: str) -> None:
    with pytest.raises(Damaged) as raised:
        decode(Outer, GOOD | change, "top")
    assert says in str(raised.value)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 250


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is not JSON at line 1, column 1"),
        (b'{"a": 1,}', "is not JSON at line 1"),
        (b"\xff", "is not UTF-8: byte 0xff"),
        (b"[NaN]", "holds a number that cannot be: NaN"),
        (b"[-Infinity]", "holds a number that cannot be"),
        (b"[1e400]", "holds a number that cannot be: 1e400"),
        (b"9" * 5000, "holds a number that cannot be"),
        (b"[" * 100_000, "nested too deeply"),
        (b'["\\ud800"]', "half of a surrogate pair"),
        (b'{"\\uDC00": 1}', "half of a surrogate pair"),
    ],
)
def test_what_is_not_strict_json(raw: bytes, says: str) -> None:
    with pytest.raises(Damaged, match=says):
        parse_json(raw)


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert parse_json(b'["\\ud83d\\ude00"]') == ["\U0001f600"]


def test_bytes_of_a_path_that_are_not_utf8_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"path": os.fsdecode(b"\xff/\xd1\x81")})
    assert path.read_bytes() == '{\n  "path": "\\udcff/с"\n}\n'.encode()
    assert os.fsencode(read_document(path, dict[str, str], half_pairs=True)["path"]) == b"\xff/\xd1\x81"
    with pytest.raises(Damaged, match="half of a surrogate pair"):
        read_document(path, dict[str, str])


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"size": 3}')
    assert read_document(path, Inner) == Inner(3)
    with pytest.raises(FileNotFoundError):
        read_document(tmp_path / "none.json", Inner)
    monkeypatch.setattr(json_file, "MOST_BYTES", 9)
    with pytest.raises(Damaged, match="is larger than"):
        read_document(path, Inner)


def test_some_keys_of_an_object() -> None:
    decode_keys({"a": Count}, {"a": 1, "b": "more"})
    for document, says in (({}, "'top.a' is missing"), ({"a": "x"}, "'top.a' is \"x\"")):
        with pytest.raises(Damaged, match=says):
            decode_keys({"a": Count}, document, "top")
