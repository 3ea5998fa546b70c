"""A Rust package that fails or prints: one line of harmless letters, and both streams stay clean."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, processors

from edge_far.errors import BundleError
from edge_far.process.rust import RustFailure, calling_rust, silence
from edge_far.texts.data import Example
from edge_far.texts.encode import Encoder


def test_what_native_code_prints_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with silence():
        os.write(1, b"a remark\n")
        os.write(2, b"a panic\n")
    print("the result")
    assert capfd.readouterr() == ("the result\n", "")


def test_a_failure_is_one_harmless_line() -> None:
    with pytest.raises(RustFailure) as raised, calling_rust():
        raise ValueError("\n\x1b[31mred\nmore")
    assert str(raised.value) == r"\x1b[31mred"
    with pytest.raises(KeyboardInterrupt), calling_rust():
        raise KeyboardInterrupt


def test_a_tokenizer_that_panics(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A template for one text that asks for a second makes the package index beyond the end of a list."""
    tokenizer = Tokenizer(models.WordLevel({"[CLS]": 0, "w1": 1}, unk_token="[CLS]"))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 0)])
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    document["post_processor"]["single"].append({"Sequence": {"id": "B", "type_id": 0}})
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError) as raised:
        Encoder(path, 16).encode([Example("w1")], None)
    assert raised.value.message.startswith("the tokenizer cannot encode a text: ")
    assert capfd.readouterr() == ("", "")
