"""Rows of a Parquet file, or of a directory that the `datasets` package has saved. Needs pyarrow: a workstation's.

A column of class numbers gives the names of its classes where the file says them, as `datasets` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_far.errors import DataError, InputMissing, StorageError, Unavailable
from edge_far.process.packages import install_line

__all__ = ["arrow_records", "is_arrow"]

PARQUET = (".parquet", ".pq")
STATE = "state.json"  # of a data set's directory
SPLITS = "dataset_dict.json"  # of a directory of several
INFO = "dataset_info.json"
METADATA = b"huggingface"
ROWS_AT_ONCE = 1024


def is_arrow(path: Path) -> bool:
    """Say whether a path is read here."""
    if path.is_dir():
        return any((path / name).is_file() for name in (STATE, SPLITS))
    return path.suffix.lower() in PARQUET


def arrow_records(path: Path, needed: Sequence[str] = ()) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the number of each row, from 1, and the row by its columns' names, a bounded number at a time.

    Columns that are `needed` must be there. Raises InputMissing, StorageError, DataError for what is no such file, and
    Unavailable (69) without pyarrow.
    """
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise Unavailable(
            f"reading this needs the package {error.name}",
            where=str(path),
            hint=f"write the data as JSONL, or: {install_line('host')}",
        ) from error
    if path.is_dir() and (path / SPLITS).is_file():
        splits = _object(path / SPLITS).get("splits")
        named = ", ".join(map(str, splits)) if isinstance(splits, list) and splits else "none"
        raise DataError("holds several splits", where=str(path), hint=f"name the directory of one of them: {named}")
    try:
        number = 0
        for batch, classes in _batches(path, pyarrow):
            if number == 0:
                _check_columns(path, batch.schema.names, needed)
            for row in batch.to_pylist():
                number += 1
                yield number, {name: _named(value, classes.get(name)) for name, value in row.items()}
    except FileNotFoundError as error:
        raise InputMissing("data file does not exist", where=str(path), hint="check the path") from error
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error
        what = str(error).partition("\n")[0][:200]
        raise DataError(f"cannot be read: {what}", where=str(path), hint="write it again, or as JSONL") from error


def _batches(path: Path, pyarrow: Any) -> Iterator[tuple[Any, Mapping[str, Sequence[str]]]]:
    """Yield record batches, each with the names of the classes of its columns."""
    if not path.is_dir():
        with path.open("rb") as file:
            parquet = pyarrow.parquet.ParquetFile(file)
            metadata = parquet.schema_arrow.metadata or {}
            classes = _class_names(_parsed(metadata.get(METADATA)).get("info"))
            for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE):
                yield batch, classes
        return
    classes = _class_names(_object(path / INFO)) if (path / INFO).is_file() else {}
    files = _object(path / STATE).get("_data_files")
    for entry in files if isinstance(files, list) else ():
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or Path(name).name != name:
            raise DataError("names no data file", where=str(path / STATE), hint="save the data set again")
        with (path / name).open("rb") as file, pyarrow.ipc.open_stream(file) as stream:
            for batch in stream:
                for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                    yield batch.slice(start, ROWS_AT_ONCE), classes


def _check_columns(path: Path, names: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in names:
            hint = f"it has {', '.join(names[:8])}; --columns text=NAME,label=NAME says which is which"
            raise DataError(f"no column '{name}'", where=str(path), hint=hint)


def _class_names(info: object) -> Mapping[str, Sequence[str]]:
    """Return the names of the classes of each column that `datasets` calls a ClassLabel."""
    features = info.get("features") if isinstance(info, dict) else None
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else None
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
            found[column] = [str(name) for name in inner["names"]]
    return found


def _named(value: object, names: Sequence[str] | None) -> object:
    """Return the name of a class by its number, None for -1, which stands for none; lists one by one."""
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else None
    return value


def _object(path: Path) -> dict[str, Any]:
    document = _parsed(path.read_bytes())
    if not document:
        raise DataError("holds no JSON object", where=str(path), hint="save the data set again")
    return document


def _parsed(text: bytes | None) -> dict[str, Any]:
    try:
        document = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
