"""How an application hands examples over: a complete JSONL file appears in the spool directory by one rename.

Standard library only, and nothing of the daemon: an application may import this module, call `edge-far
add`, or do the same itself in any language. When `add` returns, the example is on the storage device.

    from edge_far.daemon.intake import spool
    spool.add("turn the lights on", "light_on")
    spool.add("dim it", id="42", prediction="light_off")     # no label yet
    spool.add(id="42", label="light_dim")                    # the label, later
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from edge_far.disk.directory_moves import fsync_directory
from edge_far.disk.durability import fsync
from edge_far.errors import DataError, InputMissing, StorageError
from edge_far.quoting import quoted
from edge_far.storage import named_path, storage_error
from edge_far.texts.places import UNFIT_LABEL, fits_a_label
from edge_far.texts.reading.lines import MAX_LINE_BYTES

__all__ = ["DEFAULT_SPOOL", "MAX_ID_CHARACTERS", "SUFFIX", "add", "is_ready", "number_of"]

DEFAULT_SPOOL = Path("/var/spool/edge-far")
SUFFIX = ".jsonl"
SPOOLED_FILE_MODE = 0o640  # the directory's group is the daemon's
HIGHEST_NUMBER = 1 << 62  # ns since 1970: in the year 2116, and still a date that file systems take
Label = str | float | list[str]
LABELS = ("label", "prediction")
FEEDBACK = ("correct", "wrong")
MAX_ID_CHARACTERS = 200


def add(
    text: str | None = None,
    label: Label | None = None,
    *,
    text_pair: str | None = None,
    id: str | None = None,
    prediction: Label | None = None,
    feedback: str | None = None,
    spool: Path = DEFAULT_SPOOL,
) -> Path:
    """Hand over one example, one prediction or one feedback; return its file once it is durable.

    With a `label` this is an example; without one it needs the application's own `id`, under which a label,
    or the `feedback` 'correct' or 'wrong', may follow later without the text. A label, and a prediction, is a name; or
    a number or a list of names, where the model answers so; a name has at most 200 printable characters.
    Raises DataError (65), InputMissing (66) for a missing spool, UsageError (64) for an empty name of it, StorageError
    (74).
    """
    fields = {
        "id": id,
        "text": text,
        "text_pair": text_pair,
        "label": label,
        "prediction": prediction,
        "feedback": feedback,
    }
    record = {name: _text_of(name, value) for name, value in fields.items() if value is not None}
    _check(record)
    try:
        line = json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError("the text holds half of a surrogate pair", hint="write the character itself") from error
    if len(line) > MAX_LINE_BYTES:
        hint = f"a line of the spool has at most {MAX_LINE_BYTES} bytes: cut the text"
        raise DataError(f"the example has {len(line)} bytes", hint=hint)
    return _drop(line + b"\n", named_path(spool, "spool"))


def _text_of(name: str, value: Label) -> str:
    """Return a label that is a number or a list of names as text, which the daemon reads as well."""
    if name in LABELS and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return json.dumps(value, ensure_ascii=False)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return repr(value) if is_number and name in LABELS else value  # type: ignore[return-value]  # checked next


def is_ready(name: str) -> bool:
    """Return whether a name in the spool is that of a complete file."""
    return name.endswith(SUFFIX) and not name.startswith(".")


def _check(record: dict[str, str]) -> None:
    for name, value in record.items():
        if not isinstance(value, str) or "\0" in value:
            raise DataError(f"'{name}' is not a text", hint="give a string without NUL characters")
        if not value.strip():
            raise DataError(f"'{name}' is empty", hint="give a text, or leave it out")
    if "id" in record and (len(record["id"]) > MAX_ID_CHARACTERS or not record["id"].isprintable()):
        raise DataError(f"'id' is not a printable text of 1 to {MAX_ID_CHARACTERS} characters", hint="give another")
    for name in LABELS:
        if name in record and not all(map(fits_a_label, _names_in(record[name]))):
            raise DataError(f"'{name}' {quoted(record[name])} {UNFIT_LABEL}", hint="give it a shorter, plain name")
    if record.get("feedback", "correct") not in FEEDBACK:
        raise DataError(f"feedback {quoted(record['feedback'])} is not known", hint="use 'correct' or 'wrong'")
    if "id" not in record and not {"text", "label"} <= record.keys():
        raise DataError("neither an example nor a prediction", hint="give text and label, or text and id")
    if "text" not in record and not {"label", "feedback"} & record.keys():
        raise DataError("no text and no feedback", hint="give a text, or a label or feedback for the id")


def _names_in(label: str) -> list[str]:
    """Return the names that a label's text holds: itself, or those of a list in JSON."""
    if label.startswith("["):
        with suppress(ValueError, RecursionError):
            found = json.loads(label)
            return [item for item in found if isinstance(item, str)]
    return [label]


def number_of(name: str) -> int | None:
    """Return the number in the name of a file that `add` made, None of any other."""
    found = re.fullmatch(r"([0-9]{20})-[0-9a-f]{12}\.jsonl", name)
    return int(found[1]) if found else None


def _drop(line: bytes, spool: Path) -> Path:
    number = max(time.time_ns(), _newest(spool) + 1)
    stem = f"{number:020d}-{secrets.token_hex(6)}"
    temporary, final = spool / f".{stem}.tmp", spool / f"{stem}{SUFFIX}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, SPOOLED_FILE_MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), SPOOLED_FILE_MODE)
                file.write(line)
                file.flush()
                os.utime(file.fileno(), ns=(number, number))
                fsync(file.fileno(), spool)
            temporary.rename(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        try:
            fsync_directory(spool)
        except OSError:
            final.unlink(missing_ok=True)  # it was not handed over: trying again must not hand it over twice
            raise
    except FileNotFoundError as error:
        hint = "start the daemon once, or name another directory"
        raise InputMissing("spool directory does not exist", where=str(spool), hint=hint) from error
    except PermissionError as error:
        hint = "add this user to the group that owns the directory"
        raise StorageError("not allowed to write to the spool", where=str(spool), hint=hint) from error
    except OSError as error:
        raise storage_error(error, spool) from error
    return final


def _newest(spool: Path) -> int:
    """Return the latest arrival (ns since 1970; arrival.py) of all that wait: what comes now is later by any clock."""
    newest = 0
    try:
        for entry in spool.iterdir():
            if is_ready(entry.name):
                with suppress(FileNotFoundError):  # taken by the daemon meanwhile
                    newest = max(newest, number_of(entry.name) or entry.lstat().st_ctime_ns)
    except OSError:
        return 0  # what is wrong with the directory is told by writing there
    return min(newest, HIGHEST_NUMBER)
