"""Hostile variants of good documents: of JSON, YAML, tables, safetensors, and of plain bytes.

Every function takes a `random.Random` and nothing else that varies, so a variant is reproduced by its seed. Knows no
format of edge-far: a target (targets/) says which document is read where.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

__all__ = ["mutate_bytes", "mutate_json", "mutate_lines", "mutate_safetensors", "mutate_value", "pack_safetensors"]

DEEP = 20_000
LONG = 100_000

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 7, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**18),
    *(10**30, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e-12, 1e30, 1e308, -1e308),
    *(float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\n",
        "a\nb",
        "a\r\nb",
        "\x1b[31mred\x1b[0m",
        "\u202eabc",
        "\u00e9",
        "e\u0301",
        "\U0001f600",
    ),
    *(
        "\ud800",
        "\udcff",
        "\u0663",
        "1",
        "1e-12",
        "nan",
        "true",
        "null",
        "None",
        "-",
        "--help",
        "%s",
        "{0}",
        "{",
        '"',
        "'",
    ),
    *("..", "../outside", "../../etc/passwd", "/etc/passwd", "/", ".", "a/b", "a\\b", "con", "~", "\ufeff", "x" * 300),
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [{}], {"": ""}, [None], {"text": "x"}, [0], ["x"])


def hostile(chance: Random) -> Any:
    """Return some value that a careful document would not hold."""
    kind = chance.randrange(12)
    if kind < 5:
        return chance.choice(NUMBERS)
    if kind < 9:
        return chance.choice(TEXTS)
    if kind == 9 and chance.random() < 0.3:
        return "y" * LONG
    return copy.deepcopy(chance.choice(OTHERS))


def mutate_value(value: Any, chance: Random) -> Any:
    """Return another value in place of one scalar or container, near it or far from it."""
    if chance.random() < 0.4:
        return hostile(chance)
    if isinstance(value, bool) or value is None:
        return hostile(chance)
    if isinstance(value, int):
        near = (
            value + 1,
            value - 1,
            -value,
            value * 2,
            value * 1000,
            value * 10**9,
            value / 7 if abs(value) < 2**60 else 0.0,
            str(value)[:40],
            [value],
        )
        return chance.choice(near)
    if isinstance(value, float):
        return chance.choice((-value, value * 1e9, value / 1e9, round(value) if abs(value) < 1e300 else 0, str(value)))
    if isinstance(value, str):
        place = chance.randrange(len(value) + 1)
        return chance.choice(
            (value[:place], value[place:], value + value, value[:place] + chance.choice(TEXTS) + value[place:])
        )
    if isinstance(value, list):
        return _mutated_list(value, chance)
    return list(value) if chance.random() < 0.5 else {}


def _mutated_list(value: list[Any], chance: Random) -> list[Any]:
    place = chance.randrange(len(value) + 1)
    changed: list[Callable[[], list[Any]]] = [
        lambda: value[:place],
        lambda: value[place:],
        lambda: value[::-1],
        lambda: value + value,
        lambda: [*value[:place], hostile(chance), *value[place:]],
        lambda: value * chance.choice((3, 100)) if len(value) < 100 else value[:1],
        lambda: [value],
    ]
    return chance.choice(changed)()


def mutate_document(document: Any, chance: Random) -> Any:
    """Return a copy of nested lists and dictionaries in which one to three places have changed."""
    changed = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        changed = _change_a_place(changed, chance)
    return changed


def _change_a_place(document: Any, chance: Random) -> Any:
    if not isinstance(document, (dict, list)) or not document or chance.random() < 0.03:
        return mutate_value(document, chance)
    parent = document
    while True:
        key = chance.choice(list(parent)) if isinstance(parent, dict) else chance.randrange(len(parent))
        child = parent[key]
        if isinstance(child, (dict, list)) and child and chance.random() < 0.8:
            parent = child
            continue
        break
    action = chance.randrange(10)
    if action < 6:
        parent[key] = mutate_value(parent[key], chance)
    elif action == 6:
        del parent[key]
    elif action == 7 and isinstance(parent, dict):
        parent[chance.choice(TEXTS)] = parent.pop(key)
    elif action == 8:
        other = chance.choice(list(parent)) if isinstance(parent, dict) else chance.randrange(len(parent))
        parent[key], parent[other] = parent[other], parent[key]
    elif isinstance(parent, dict):
        parent[chance.choice(TEXTS)] = hostile(chance)
    else:
        parent.append(hostile(chance))
    return document


def json_bytes(document: Any, chance: Random) -> bytes:
    """Return a document as JSON, with escapes or without; half a surrogate becomes bytes that are not UTF-8."""
    try:
        text = json.dumps(document, ensure_ascii=chance.random() < 0.5, indent=chance.choice((None, None, 1)))
    except ValueError:  # a number of more digits than Python prints
        text = json.dumps(str(type(document)))
    return text.encode("utf-8", "surrogatepass")


def mutate_json(good: bytes, chance: Random) -> bytes:
    """Return a variant of a JSON document: of its values mostly, else of its text; of what is none, of its bytes."""
    kind = chance.randrange(12)
    try:
        document = json.loads(good)
    except (ValueError, RecursionError):
        return mutate_bytes(good, chance)
    if kind == 0:
        return mutate_bytes(good, chance)
    if kind == 1:
        return chance.choice(_whole_documents())
    if kind == 2 and isinstance(document, dict) and document:
        return _with_a_key_twice(document, chance)
    if kind == 3:
        return _with_raw_text(document, chance)
    return json_bytes(mutate_document(document, chance), chance)


def _whole_documents() -> tuple[bytes, ...]:
    return (
        *(b"", b" ", b"{}", b"[]", b"null", b"0", b'""', b"NaN", b"{", b"[" * DEEP, b'{"a":' * DEEP, b"\0" * 4096),
        *(
            b"\xef\xbb\xbf{}",
            "{}".encode("utf-16"),
            b"\x1f\x8b\x08\0\0\0\0\0",
            b"9" * 5000,
            b"[" + b"0," * LONG + b"0]",
        ),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    )


def _with_a_key_twice(document: dict[str, Any], chance: Random) -> bytes:
    key = chance.choice(list(document))
    first = json.dumps({key: hostile(chance)})[:-1]
    return f"{first}, {json.dumps(document)[1:]}".encode("utf-8", "surrogatepass")


def _with_raw_text(document: Any, chance: Random) -> bytes:
    """Put a text that no JSON writer gives in a value's place."""
    marked = mutate_document(document, chance)
    raw = chance.choice(
        ("[" * DEEP + "]" * DEEP, "9" * 5000, "1e400", "-", "0123", "'x'", "\\ud800", '"\\ud800"', "NaN")
    )
    if isinstance(marked, dict) and marked:
        marked[chance.choice(list(marked))] = "@@"
    else:
        marked = "@@"
    return json.dumps(marked).replace('"@@"', raw, 1).encode("utf-8", "surrogatepass")


def mutate_bytes(good: bytes, chance: Random) -> bytes:
    """Return a variant of any content: cut, flipped, doubled, in another encoding, with bytes that do not belong."""
    data = bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(data) + 1)
        end = min(len(data), place + chance.choice((1, 2, 8, 100)))
        action = chance.randrange(9)
        if action == 0:
            del data[place:]
        elif action == 1:
            del data[place:end]
        elif action == 2 and data:
            data[place % len(data)] ^= 1 << chance.randrange(8)
        elif action == 3:
            data[place:place] = chance.choice((b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x1b[2J"))
        elif action == 4:
            data[place:place] = data[place:end]
        elif action == 5:
            data[place:place] = chance.choice((b"\n", b"\r", b"\r\n", b"\t", b" ", b'"', b",", b"}", b"[", b"\x85"))
        elif action == 6:
            data[place:end] = bytes(end - place)
        elif action == 7:
            data[place:place] = bytes(chance.randrange(256) for _ in range(chance.choice((1, 4, 64))))
        else:
            return _in_another_encoding(bytes(data), chance)
    return bytes(data)


def _in_another_encoding(data: bytes, chance: Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return chance.choice(
        (
            *(
                text.encode("utf-16"),
                text.encode("utf-16-le"),
                text.encode("latin-1", "replace"),
                b"\xef\xbb\xbf" + data,
            ),
            *(data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r"), data.rstrip(b"\n"), data + data),
        )
    )


def mutate_lines(good: bytes, chance: Random, mutate_line: Callable[[bytes, Random], bytes]) -> bytes:
    """Return a variant of a file of lines: lines changed each for itself, doubled, swapped, emptied, made long."""
    if chance.random() < 0.15:
        return mutate_bytes(good, chance)
    lines = good.split(b"\n")
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(lines))
        action = chance.randrange(10)
        if action < 6 and lines[place]:
            lines[place] = mutate_line(lines[place], chance)
        elif action == 6:
            lines.insert(place, lines[place])
        elif action == 7:
            other = chance.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        elif action == 8:
            lines.insert(place, chance.choice((b"", b" ", b"\t", b"\x1c", b"\xc2\xa0", b"\xe2\x80\xa8", b"\r")))
        elif chance.random() < 0.2:
            lines.insert(place, chance.choice((b"x", b"[", b'{"text": "', b"\xff")) * (1 << 20))
    return b"\n".join(lines)


def unpack_safetensors(good: bytes) -> tuple[dict[str, Any], bytes]:
    """Return header and data of a good safetensors file."""
    (length,) = struct.unpack("<Q", good[:8])
    return json.loads(good[8 : 8 + length]), good[8 + length :]


def pack_safetensors(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """Return a safetensors file; `length` is what it says of its header."""
    return struct.pack("<Q", (len(header) if length is None else length) & (2**64 - 1)) + header + data


def mutate_safetensors(good: bytes, chance: Random) -> bytes:
    """Return a variant of a safetensors file: its header, the length of that, or its data."""
    header, data = unpack_safetensors(good)
    encoded = json.dumps(header).encode()
    kind = chance.randrange(9)
    if kind == 0:
        return mutate_bytes(good, chance)
    if kind == 1:
        sizes = (0, 1, 2, len(encoded) - 1, len(encoded) + 1, len(good), 2**31, 2**32, 2**40, 2**63, 2**64 - 1)
        return pack_safetensors(encoded, data, chance.choice(sizes))
    if kind == 2:
        return pack_safetensors(mutate_json(encoded, chance), data)
    if kind == 3:
        values = chance.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\0\0\0\0"))
        place = chance.randrange(max(1, len(data) // 4)) * 4
        return pack_safetensors(encoded, data[:place] + values + data[place + 4 :])
    if kind == 4:
        cut = chance.randrange(len(data) + 1)
        return pack_safetensors(encoded, chance.choice((data[:cut], data + data, b"", data + b"\0")))
    changed = copy.deepcopy(header)
    name = chance.choice([name for name in changed if name != "__metadata__"])
    _change_tensor(changed, name, chance)
    return pack_safetensors(json_bytes(changed, chance), data)


def _change_tensor(header: dict[str, Any], name: str, chance: Random) -> None:
    entry = header[name]
    start, stop = entry["data_offsets"]
    action = chance.randrange(8)
    if action == 0:
        entry["dtype"] = chance.choice(
            ("F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", "float32", "", 3, None)
        )
    elif action == 1:
        entry["shape"] = mutate_value(entry["shape"], chance)
    elif action == 2:
        entry["shape"] = chance.choice(([], [0], [-1], [2**63], [2**32, 2**32], [1] * 64, [1] * 3000, [stop - start]))
    elif action == 3:
        other = chance.choice([name for name in header if name != "__metadata__"])
        entry["data_offsets"] = copy.deepcopy(header[other]["data_offsets"])
    elif action == 4:
        odd = (
            [stop, start],
            [-start, stop],
            [start, stop + 4],
            [0, 2**63],
            [start],
            [start, stop, stop],
            "x",
            None,
            [0.5, 1],
        )
        entry["data_offsets"] = chance.choice(odd)
    elif action == 5:
        header[chance.choice(TEXTS)] = header.pop(name)
    elif action == 6:
        del header[name]
    else:
        header["__metadata__"] = chance.choice(({"format": "pt"}, {"a": 1}, [], "x", None, {"k": "v" * LONG}))
