"""Opens a data file, packed by gzip or not, and says what its name says of its format. Reads no content."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from edge_far.errors import DataError, InputMissing, StorageError

__all__ = ["PACKING_ERRORS", "check_packing", "format_of", "open_data", "packing_problem"]

FORMATS = {
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".conll": "CoNLL",
    ".bio": "CoNLL",
    ".iob2": "CoNLL",
    ".json": "SQuAD",
}
AT_ONCE = 1 << 20
GZIP = b"\x1f\x8b"
PACKING_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)


def format_of(path: Path) -> str | None:
    """Return JSONL, CSV, TSV, CoNLL or SQuAD by the suffix, which .gz may follow; None for another."""
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return FORMATS.get(name.suffix.lower())


def open_data(path: Path) -> BinaryIO:
    """Open a file for reading; what is packed by gzip is unpacked, whatever its name is.

    Raises InputMissing (66), DataError (65) for a directory, StorageError (74). Reading what is packed can raise
    PACKING_ERRORS.
    """
    try:
        if path.is_dir():
            raise DataError("is a directory, not a data file", where=str(path), hint="name one file in it")
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever, and data are read twice
            raise DataError("is a pipe or a device, not a data file", where=str(path), hint="write it to a file first")
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")
    except FileNotFoundError as error:
        raise InputMissing("data file does not exist", where=str(path), hint="check the path") from error
    except OSError as error:
        raise StorageError(
            f"cannot read: {error.strerror}", where=str(path), hint="check the owner and the mode of the file"
        ) from error


def check_packing(path: Path, file: BinaryIO) -> None:
    """Raise packing_problem where the rest of an open file does not unpack; does nothing for one that is not packed."""
    if not isinstance(file, gzip.GzipFile):
        return
    try:
        while file.read(AT_ONCE):
            pass
    except PACKING_ERRORS as error:
        raise packing_problem(path, error) from error


def packing_problem(path: Path, error: Exception) -> DataError:
    """Return what to say of a packed file that does not unpack."""
    what = "ends too early" if isinstance(error, EOFError) else "is damaged"
    return DataError(f"the gzip file {what}", where=str(path), hint="copy or pack it again; gzip -t FILE checks it")
