"""Reads JSON documents whose form a frozen dataclass declares; whatever is wrong with one is one exception.

A field's annotation is its schema: bool, int, float, str, a Literal, another dataclass, `tuple[X, ...]`, `tuple[X, Y]`,
`Mapping[str, X]`, unions of these, Any. `Annotated[int, Within(1, 64)]` bounds a number or a text's length,
`Annotated[str, OneOf("a", "b")]` does as a Literal, for a field that is a plain str elsewhere. Numbers are
finite and fit 64 bits, texts hold no half of a surrogate pair. Refuses to know files of edge-far and who reads them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

__all__ = [
    "Count",
    "Damaged",
    "Name",
    "OneOf",
    "Size",
    "Within",
    "decode",
    "decode_keys",
    "parse_json",
    "read_document",
]

MOST_BYTES = 64 << 20
SHOWN_CHARACTERS = 60
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


class Damaged(ValueError):
    """A document is not JSON, or not of the declared form; one line says what and at which key."""


@dataclass(frozen=True)
class Within:
    """Bounds of a number, or of the number of characters of a text or items of a tuple; both are allowed values."""

    low: float
    high: float


class OneOf:
    """The words of which a text must be one."""

    def __init__(self, *words: str) -> None:
        self.words = words


Count = Annotated[int, Within(0, 2**53)]
Size = Annotated[int, Within(1, 2**40)]
Name = Annotated[str, Within(1, 1000)]


def read_document(path: Path, kind: Any, name: str = "", *, half_pairs: bool = False) -> Any:
    """Return the content of a file as `kind`; raises Damaged, OSError. `name` begins the key in a message.

    With `half_pairs` texts may hold halves of surrogate pairs: so Python writes bytes of a path that are not UTF-8.
    """
    with path.open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise Damaged(f"is larger than {MOST_BYTES >> 20} MiB")
    return decode(kind, parse_json(raw, half_pairs=half_pairs), name)


def parse_json(raw: bytes, *, half_pairs: bool = False) -> Any:
    """Return the value of a JSON text in UTF-8; raises Damaged for whatever strict JSON does not allow."""
    try:
        value = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite)
        if not half_pairs and _HALF_PAIR.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Damaged("holds half of a surrogate pair") from error
    except UnicodeDecodeError as error:
        raise Damaged(f"is not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise Damaged(f"is not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise Damaged("is nested too deeply") from error
    except ValueError as error:
        raise Damaged(f"holds a number that cannot be: {_clipped(str(error))}") from error
    return value


def decode(kind: Any, value: Any, where: str = "") -> Any:
    """Return a parsed document as `kind`, strictly: no unknown key, no missing one, no wrong type; raises Damaged.

    A dataclass's field that has a default may be missing.
    """
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _bounded(typing.get_args(kind), value, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(kind, value, where)
    if origin is Literal:
        if not isinstance(value, str) or value not in typing.get_args(kind):
            raise Damaged(f"{_at(where)} is {_shown(value)}, not {' or '.join(map(str, typing.get_args(kind)))}")
        return value
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), value, where)
    if origin in (Mapping, dict):
        _expect(value, dict, "an object", where)
        item = typing.get_args(kind)[1]
        return {key: decode(item, element, f"{where}[{_clipped(ascii(key))}]") for key, element in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    return _decode_scalar(kind, value, where)


def decode_keys(kinds: Mapping[str, Any], document: Mapping[str, Any], where: str = "") -> None:
    """Raise Damaged unless an object has these keys, of these kinds; it may have others."""
    for key, kind in kinds.items():
        if key not in document:
            raise Damaged(f"{_at(_below(where, key))} is missing")
        decode(kind, document[key], _below(where, key))


def _decode_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return float(value)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    _expect(value, kind, names[kind], where)
    if kind is int and abs(value) >= 2**63:
        raise Damaged(f"{_at(where)} is beyond 64 bits")
    if kind is float and not math.isfinite(value):
        raise Damaged(f"{_at(where)} is {value}, not a number")
    return value


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(value, dict, "an object", where)
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := [key for key in value if key not in fields]:
        raise Damaged(f"{_at(_below(where, unknown[0]))} is unknown")
    needed = [name for name, field in fields.items() if not _has_default(field)]
    if missing := [name for name in needed if name not in value]:
        raise Damaged(f"{_at(_below(where, missing[0]))} is missing")
    return kind(**{key: decode(hints[key], element, _below(where, key)) for key, element in value.items()})


def _decode_tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _expect(value, list, "a list", where)
    if len(items) == 2 and items[1] is ...:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise Damaged(f"{_at(where)} has {len(value)} items instead of {len(items)}")
    pairs = zip(items, value, strict=True)
    return tuple(decode(item, element, f"{where}[{index}]") for index, (item, element) in enumerate(pairs))


def _decode_union(kind: Any, value: Any, where: str) -> Any:
    options = typing.get_args(kind)
    if value is None and type(None) in options:
        return None
    reason = None
    for option in options:
        if option is not type(None):
            try:
                return decode(option, value, where)
            except Damaged as error:
                reason = error
    raise reason or Damaged(f"{_at(where)} is {_shown(value)}")


def _bounded(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    found = decode(arguments[0], value, where)
    for bound in arguments[1:]:
        if isinstance(bound, OneOf) and found not in bound.words:
            raise Damaged(f"{_at(where)} is {_shown(found)}, not {' or '.join(bound.words)}")
        if isinstance(bound, Within):
            measured = found if isinstance(found, int | float) else len(found)
            if not bound.low <= measured <= bound.high:
                what = "is" if isinstance(found, int | float) else "has a length of"
                raise Damaged(f"{_at(where)} {what} {measured:g}, not from {bound.low:g} to {bound.high:g}")
    return found


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _expect(value: Any, kind: type, name: str, where: str) -> None:
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise Damaged(f"{_at(where)} is {_shown(value)}, not {name}")


def _at(where: str) -> str:
    return f"'{where}'" if where else "the document"


def _below(where: str, key: str) -> str:
    shown = key if re.fullmatch(r"[\w.-]{1,80}", key) else _clipped(ascii(key))
    return f"{where}.{shown}" if where else shown


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return "a number beyond 64 bits"
    return _clipped(json.dumps(value))


def _clipped(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)
