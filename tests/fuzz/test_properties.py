"""What must hold for every good input: what is written is read back, what is handed over is in the store, once."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_far.bundles.arrays import read_arrays, write_arrays
from edge_far.daemon.intake import spool
from edge_far.daemon.intake.ingest import Ingestion
from edge_far.daemon.store.examples import Store
from edge_far.errors import DataError
from edge_far.profile.document import SECTIONS, load_profile
from edge_far.profile.schema import REQUIRED, default_of, settings_of
from edge_far.texts.data import Example, read_examples
from edge_far.texts.places import fits_a_label

FEW = settings(max_examples=25, derandomize=True, deadline=None, database=None)

LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(LETTERS, min_size=1, max_size=30).filter(str.strip)
LABELS = st.text(LETTERS, min_size=1, max_size=10).map(str.strip).filter(bool)  # blanks around one are left out
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\r\n"), min_size=1).filter(str.strip)
EXAMPLES = st.lists(st.builds(Example, TEXTS, st.none() | TEXTS, LABELS), min_size=1, max_size=6)


def read_back(content: bytes, suffix: str) -> list[Example]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"data{suffix}")
        path.write_bytes(content)
        return read_examples(path, labels=None)


@FEW
@given(EXAMPLES, st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_jsonl_is_read_as_it_was_written(examples: list[Example], escaped: bool, end: str) -> None:
    lines = []
    for example in examples:
        record = {"text": example.text, "label": example.label, "text_pair": example.text_pair}
        lines.append(json.dumps(record, ensure_ascii=escaped) + end)
    assert read_back("".join(lines).encode(), ".jsonl") == examples


@FEW
@given(EXAMPLES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_is_read_as_it_was_written(examples: list[Example], end: str, marked: bool) -> None:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerow(["text", "text_pair", "label"])
    writer.writerows([example.text, example.text_pair or "", example.label] for example in examples)
    content = out.getvalue().encode("utf-8-sig" if marked else "utf-8")
    assert read_back(content, ".csv") == examples


@FEW
@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=6))
def test_tsv_is_read_as_it_was_written(rows: list[tuple[str, str]]) -> None:
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    assert read_back(content.encode(), ".tsv") == [Example(text, None, label.strip()) for text, label in rows]


@settings(FEW, max_examples=8)
@given(EXAMPLES)
def test_what_is_handed_over_is_in_the_store_once(examples: list[Example]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "spool").mkdir()
        kept = [example for example in examples if fits_a_label(example.label)]
        for example in examples:
            told = nullcontext() if example in kept else pytest.raises(DataError, match="is not a printable text")
            with told:
                spool.add(example.text, example.label, text_pair=example.text_pair, spool=root / "spool")
        with Store(root / "store.sqlite3") as store:
            report = Ingestion(root / "spool", store).run()
            stored = [each.example for side in (False, True) for each in store.examples(held_out=side)]
    assert report.quarantined == 0 and report.files == len(kept)
    last = {(example.text, example.text_pair): example for example in kept}
    assert sorted(stored, key=repr) == sorted(last.values(), key=repr)


def a_value(section: type, name: str) -> st.SearchStrategy[Any]:
    """Return a strategy for what a setting accepts."""
    rules, kind = settings_of(section)[name]
    low, high = rules.minimum, rules.maximum
    found: st.SearchStrategy[Any]
    if kind.choices:
        found = st.sampled_from(kind.choices)
    elif kind.base is bool:
        found = st.booleans()
    elif kind.base is str:
        found = st.from_regex(rules.pattern, fullmatch=True) if rules.pattern else PLAIN.filter(str.isprintable)
    elif kind.base is int:
        found = st.integers(int(low or 0), int(high or 2**31))
    else:
        found = st.floats(low or 0.0, high or 1e9, allow_nan=False)
    return st.none() | found if kind.nullable else found


@settings(FEW, max_examples=8)
@given(st.data())
def test_a_profile_shown_is_the_same_profile(data: st.DataObject) -> None:
    document: dict[str, dict[str, Any]] = {"memory": {"budget_mib": 64}, "board": {}}
    for section, kind in SECTIONS.items():
        # Settings that contradict each other are another matter.
        names = [name for name in settings_of(kind) if section not in ("thermal", "memory", "security", "board")]
        for name in data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names else []:
            assert default_of(kind, name) is not REQUIRED
            document.setdefault(section, {})[name] = data.draw(a_value(kind, name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "profile.yaml")
        path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        profile = load_profile(path)
        for section, values in document.items():
            assert {name: profile.as_document()[section][name] for name in values} == values
        path.write_text(yaml.safe_dump(profile.as_document(), allow_unicode=True), encoding="utf-8")
        assert load_profile(path) == profile


ARRAYS: st.SearchStrategy[np.ndarray] = st.builds(
    lambda shape, kind, seed: np.random.default_rng(seed).integers(0, 100, shape).astype(kind),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(["float32", "int64", "int8", "uint8"]),
    st.integers(0, 1000),
)


@FEW
@given(st.dictionaries(TEXTS.filter(lambda name: name != "__metadata__"), ARRAYS, max_size=4))
def test_arrays_are_read_as_they_were_written(arrays: dict[str, np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "arrays.safetensors")
        write_arrays(path, arrays)
        found = read_arrays(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
