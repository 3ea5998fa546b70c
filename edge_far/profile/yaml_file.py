"""Reads a settings file: one small UTF-8 YAML document, from plain types, with every failure made clear."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from edge_far.errors import ConfigError, InputMissing
from edge_far.storage import unreadable

__all__ = ["read_yaml"]

MAX_FILE_BYTES = 256 * 1024


class _Loader(yaml.SafeLoader):
    """The safe loader, without what a settings file has no use for: aliases and duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias (*name) is not allowed here", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in lines:
                problem = f"the key '{key.value}' is there already, at line {lines[key.tag, key.value]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.tag, key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def read_yaml(
    path: Path,
    *,
    what: str = "profile",
    where_to_look: str = "edge-far profiles list shows the built-in ones",
    sample: str = "start from the output of: edge-far profiles sample",
) -> object:
    """Return the one document of a file, which messages call `what`; two hints say what else there is.

    Raises InputMissing, StorageError, or ConfigError with the line for what is not UTF-8, not YAML or empty.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, ValueError):  # a name that no file can have: it holds a zero byte or half a character
        raise InputMissing(f"no such {what} file", where=str(path), hint=where_to_look) from None
    except OSError as error:
        raise unreadable(error, path, sample) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"is larger than {MAX_FILE_BYTES // 1024} KiB, so not a {what}", where=str(path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"is not UTF-8 text (byte 0x{raw[error.start]:02x})",
            where=f"{path}:{line}",
            hint="save it as UTF-8",
        ) from None
    try:
        document = yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"is not valid YAML: {reason}", where=where, hint=sample) from None
    except RecursionError:
        raise ConfigError("is not valid YAML: nested too deeply", where=str(path)) from None
    except Exception as error:  # PyYAML lets through whatever int(), a date or a look-up raises for an odd value
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"is not valid YAML: {reason}", where=str(path)) from None
    if document is None:
        raise ConfigError("is empty", where=str(path), hint=sample)
    return document
