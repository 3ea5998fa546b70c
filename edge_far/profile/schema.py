"""Typed settings read from YAML: declared once as dataclass fields, checked together, explained as a sample.

A section is a frozen dataclass whose fields are made by `setting(...)`: the annotation gives the type (int,
float, bool, str, Literal, each perhaps `| None`), the call gives default, unit, bounds and help. Validation,
the commented sample and the defaults all read that one declaration. This file knows nothing of boards; see
edge_far.profile.document.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["REQUIRED", "Setting", "commented_sample", "default_of", "parse", "setting", "settings_of"]

REQUIRED: Any = dataclasses.MISSING
SHOWN_VALUE_CHARACTERS = 60

# How people write an amount -> how many of our unit it is; keyed by our unit.
AMOUNTS: dict[str, dict[str, float]] = {
    "MiB": {
        "b": 2**-20,
        "kb": 1e3 / 2**20,
        "kib": 2**-10,
        "m": 1,
        "mb": 1e6 / 2**20,
        "mib": 1,
        "g": 1024,
        "gb": 1e9 / 2**20,
        "gib": 1024,
    },
    "degrees Celsius": {"c": 1, "°c": 1, "celsius": 1},
    "percent": {"%": 1, "percent": 1},
    "minutes": {"s": 1 / 60, "min": 1, "m": 1, "minutes": 1, "h": 60, "hours": 60},
}
# The last part of a key that names a unit, right or wrong: `budget_mb` is meant to be `budget_mib`.
UNIT_SUFFIXES = frozenset(
    [
        "b",
        "bytes",
        "kb",
        "kib",
        "m",
        "mb",
        "mib",
        "g",
        "gb",
        "gib",
        "percent",
        "pct",
        "c",
        "celsius",
        "degrees",
        "f",
        "fahrenheit",
        "s",
        "seconds",
        "min",
        "minutes",
        "h",
        "hours",
    ]
)


@dataclass(frozen=True)
class Setting:
    """What one field accepts, and the sentence that explains it."""

    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    form: str = ""
    example: object = None


def setting(default: Any, help: str, **rules: Any) -> Any:
    """Declare a dataclass field; `default` may be REQUIRED, `rules` are the fields of Setting."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help, **rules)})


@dataclass(frozen=True)
class Kind:
    """A field's type, as its annotation says."""

    base: type
    nullable: bool
    choices: tuple[str, ...] = ()


def settings_of(section: type) -> dict[str, tuple[Setting, Kind]]:
    """Return the declared settings of a section by field name, in the order of declaration."""
    hints = typing.get_type_hints(section)
    return {
        field.name: (field.metadata["setting"], _kind(hints[field.name]))
        for field in dataclasses.fields(section)
        if "setting" in field.metadata
    }


def default_of(section: type, name: str) -> Any:
    """Return the default of a field, or REQUIRED."""
    return next(field.default for field in dataclasses.fields(section) if field.name == name)


def parse(sections: Mapping[str, type], document: object) -> tuple[dict[str, Any], list[str]]:
    """Check a document against its sections; return the sections and every problem found.

    A section with a problem is missing from the result. A problem is one line:
    `At 'memory.budget_mib': must be ...`.
    """
    if not isinstance(document, dict):
        return {}, [f"must be a mapping of sections ({', '.join(sections)}), not {_shown(document)}"]
    problems = [f"At '{_key(key)}': {_unknown_key(str(key), '', sections)}" for key in document if key not in sections]
    parsed: dict[str, Any] = {}
    for name, section in sections.items():
        value, found = _parse_section(name, section, document.get(name), sections)
        problems += found
        if not found:
            parsed[name] = value
    return parsed, problems


def _parse_section(name: str, section: type, document: object, sections: Mapping[str, type]) -> tuple[Any, list[str]]:
    if document is None:  # absent, or a heading with every line below it commented out
        document = {}
    known = settings_of(section)
    if not isinstance(document, dict):
        return None, [f"At '{name}': must be a mapping of {', '.join(known)}, not {_shown(document)}"]
    problems = []
    for key in document:
        if key not in known:
            problems.append(f"At '{name}.{_key(key)}': {_unknown_key(str(key), name, sections)}")
    values: dict[str, Any] = {}
    for key, (rules, kind) in known.items():
        where = f"At '{name}.{key}'"
        if key not in document:
            if default_of(section, key) is REQUIRED:
                problems.append(f"{where}: is missing; it must be {_rule(rules, kind)}")
            continue
        value = document[key]
        if not _accepts(rules, kind, value):
            hint = _value_hint(rules, kind, value)
            tail = f" ({hint})" if hint else ""
            problems.append(f"{where}: must be {_rule(rules, kind)}, not {_shown(value)}{tail}")
            continue
        values[key] = float(value) if kind.base is float and value is not None else value
    return (None if problems else section(**values)), problems


def commented_sample(sections: Mapping[str, type]) -> str:
    """Return a valid YAML file that shows every field with its default, explained in comments."""
    lines: list[str] = []
    for name, section in sections.items():
        summary = (section.__doc__ or "").strip().splitlines()[0]
        lines += [*([""] if lines else []), *_comment(summary, ""), f"{name}:"]
        for index, (key, (rules, kind)) in enumerate(settings_of(section).items()):
            default = default_of(section, key)
            required = default is REQUIRED
            origin = "Required" if required else f"Default: {_scalar(default, kind)}"
            note = f"Must be {_rule(rules, kind)}. {origin}."
            shown = rules.example if rules.example is not None else default
            lines += [""] if index else []
            lines += [*_comment(rules.help, "  "), *_comment(note, "  ")]
            lines.append(f"  {key}: {_scalar(shown, kind)}")
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, width=96, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
    )


def _scalar(value: object, kind: Kind) -> str:
    return str(value) if value in kind.choices else json.dumps(value, ensure_ascii=False)


def _kind(annotation: Any) -> Kind:
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    parts = typing.get_args(annotation) if is_union else (annotation,)
    nullable = type(None) in parts
    (core,) = (part for part in parts if part is not type(None))
    if typing.get_origin(core) is Literal:
        return Kind(str, nullable, typing.get_args(core))
    if core not in (int, float, bool, str):
        raise TypeError(f"a setting cannot be a {core}")
    return Kind(core, nullable)


def _accepts(rules: Setting, kind: Kind, value: object) -> bool:
    if value is None:
        return kind.nullable
    if kind.choices:
        return value in kind.choices
    if kind.base is bool:
        return isinstance(value, bool)
    if kind.base is str:
        return isinstance(value, str) and re.fullmatch(rules.pattern or r"[^\x00-\x1f]*", value) is not None
    if isinstance(value, bool) or not isinstance(value, int if kind.base is int else int | float):
        return False
    low = -math.inf if rules.minimum is None else rules.minimum
    high = math.inf if rules.maximum is None else rules.maximum
    return low <= value <= high  # false for NaN


def _rule(rules: Setting, kind: Kind) -> str:
    """Say what a field accepts, to follow 'must be'."""
    if kind.choices:
        text = " or ".join(kind.choices)
    elif kind.base is bool:
        text = "true or false"
    elif kind.base is str:
        text = rules.form or "text on one line"
    else:
        text = "a whole number" if kind.base is int else "a number"
        text += f" of {rules.unit}" if rules.unit else ""
        if rules.minimum is not None and rules.maximum is not None:
            text += f" between {rules.minimum} and {rules.maximum}"
    return f"{text}, or null" if kind.nullable else text


def _value_hint(rules: Setting, kind: Kind, value: object) -> str:
    """Say what was probably meant by a wrong value."""
    if kind.base is str and not kind.choices and isinstance(value, int | float):
        return "put it in quotes"
    if not isinstance(value, str) or kind.base is str:
        return ""
    if kind.base is bool:
        return "without quotes" if value in ("true", "false") else ""
    match = re.fullmatch(r"\s*(-?\d{1,12}(?:\.\d{1,12})?)\s*([a-zA-Z°%]*)\s*", value)
    if match is None:
        return ""
    number, unit = float(match[1]), match[2].lower()
    if not unit:
        return "without quotes" if _accepts(rules, kind, _whole(number)) else ""
    factor = AMOUNTS.get(rules.unit, {}).get(unit)
    if factor is None:
        return f"the number alone, in {rules.unit}" if rules.unit else "the number alone"
    amount = _whole(round(number * factor) if kind.base is int else number * factor)
    return f"the number alone, in {rules.unit}: {value.strip()} is {amount}"


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _unknown_key(key: str, section: str, sections: Mapping[str, type]) -> str:
    """Say that a key is unknown, and which one was probably meant."""
    known = settings_of(sections[section]) if section else {}
    stem = _stem(key)
    for name, (rules, _) in known.items():
        if rules.unit and _stem(name) == stem:
            return f"unknown key; did you mean '{name}', in {rules.unit}?"
    near = difflib.get_close_matches(key, [*known] or [*sections], n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean '{near[0]}'?"
    for other, cls in sections.items():
        for name in settings_of(cls):
            if key == name or (len(stem) > 3 and stem == _stem(name)):
                return f"unknown key; did you mean '{other}.{name}'?"
    choices = ", ".join(known or sections)
    return f"unknown key; known here are {choices}"


def _stem(key: str) -> str:
    head, _, tail = key.lower().rpartition("_")
    return head if head and tail in UNIT_SUFFIXES else key.lower()


def _key(key: object) -> str:
    return _clipped(str(key) if isinstance(key, str | int | float) or key is None else type(key).__name__)


def _shown(value: object) -> str:
    """Show a value of a file on one line, never more of it than a reader needs."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | set | tuple):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _clipped(str(value)) if -1e300 < value < 1e300 else "a number beyond all bounds"
    return f"'{_clipped(str(value))}'"


def _clipped(text: str) -> str:
    line = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return line if len(line) <= SHOWN_VALUE_CHARACTERS else line[: SHOWN_VALUE_CHARACTERS - 3] + "..."
