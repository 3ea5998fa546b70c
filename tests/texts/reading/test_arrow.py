"""Parquet files and directories of `datasets`, written here by pyarrow as that package lays them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_far.errors import DataError, InputMissing, Unavailable
from edge_far.texts.data import Example, read_examples
from edge_far.texts.reading.columns import parse_columns

ROWS = {"sentence": ["a", "b", "c"], "label": [1, 0, -1], "idx": [0, 1, 2]}
FEATURES = {
    "sentence": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["bad", "good"], "_type": "ClassLabel"},
    "idx": {"dtype": "int32", "_type": "Value"},
}
WANTED = [Example("a", None, "good"), Example("b", None, "bad"), Example("c", None, None)]


def save(path: Path, rows: dict[str, list[Any]], features: dict[str, Any] | None = None) -> Path:
    """Write a Parquet file, or, without a suffix, a data set's directory of two files."""
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.ipc")
    pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(rows)
    if path.suffix:
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)
        return path
    path.mkdir()
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, part in zip(names, (table.slice(0, 1), table.slice(1)), strict=True):
        with pyarrow.ipc.new_stream(path / name, table.schema) as stream:
            stream.write_table(part)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (path / "dataset_info.json").write_text(json.dumps({"features": features}))
    return path


@pytest.mark.parametrize("name", ["a.parquet", "saved"])
def test_rows_with_the_names_of_their_classes(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, ROWS, FEATURES)
    columns = parse_columns("text=sentence")
    assert read_examples(path, labels=None, require_labels=False, columns=columns) == WANTED
    with pytest.raises(DataError, match="no label") as caught:
        read_examples(path, labels=None, columns=columns)
    assert caught.value.where == f"{path}:3"


def test_without_names_numbers_are_the_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.parquet", {"text": ["a", "b"], "text_pair": ["x", None], "label": [1, 0]})
    assert read_examples(path, labels=None) == [Example("a", "x", "1"), Example("b", None, "0")]


def test_columns_that_are_missing_are_said_with_those_that_are_there(tmp_path: Path) -> None:
    path = save(tmp_path / "a.parquet", ROWS)
    with pytest.raises(DataError, match=r"no column 'text' \(it has sentence, label, idx; --columns"):
        read_examples(path, labels=None)


@pytest.mark.parametrize("content", [b"", b"PAR1", b'{"text": "a"}\n', b"PAR1" + bytes(400) + b"PAR1"])
def test_a_file_that_is_no_parquet(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_examples(tmp_path / "a.parquet", labels=None)


def test_directories_that_are_wrong(tmp_path: Path) -> None:
    path = save(tmp_path / "saved", ROWS, FEATURES)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"several splits .*: train, test"):
        read_examples(tmp_path, labels=None)
    (path / "state.json").write_text('{"_data_files": [{"filename": "../a.arrow"}]}')
    with pytest.raises(DataError, match="names no data file"):
        read_examples(path, labels=None)
    (path / "state.json").write_text("{")
    with pytest.raises(DataError, match="holds no JSON object"):
        read_examples(path, labels=None)
    with pytest.raises(InputMissing):
        (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}')
        read_examples(path, labels=None)


def test_a_device_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(Unavailable, match=r"needs the package pyarrow.*JSONL"):
        read_examples(tmp_path / "a.parquet", labels=None)
