"""Texts to token ids with the bundle's tokenizer.json; the Rust `tokenizers` package does the work.

Padding is left to the batches, where it costs least: the file's own padding and truncation settings are
ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edge_far.errors import BundleError, ConfigError, DataError, InputMissing
from edge_far.quoting import quoted
from edge_far.texts.data import Example

__all__ = ["Encoded", "Encoder"]

EXAMPLES_AT_ONCE = 256
PAD_TOKENS = ("[PAD]", "<pad>")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of many examples in one flat array: a data set costs its tokens and little more.

    tokens int32 [T]; type_ids int8 [T] or None; starts int64 [N + 1], example i being
    tokens[starts[i]:starts[i+1]]; labels int64 [N], -1 where there is none; truncated is the number of
    examples cut to max_seq_len tokens.
    """

    tokens: np.ndarray
    starts: np.ndarray
    type_ids: np.ndarray | None
    labels: np.ndarray
    truncated: int
    pad_id: int
    max_seq_len: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 [N]."""
        return np.diff(self.starts)

    @property
    def ids(self) -> list[np.ndarray]:
        """Token ids of each example, as int32 views."""
        return [self.tokens[start:stop] for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True)]


class Encoder:
    """Encodes examples as the model's tokenizer does, special tokens included."""

    def __init__(self, tokenizer_json: Path, max_seq_len: int, *, token_types: bool = True) -> None:
        """Load `tokenizer_json`; `token_types` keeps the segment of each token for models that have segments.

        Raises InputMissing, BundleError when the file is not a tokenizer, ConfigError when max_seq_len is too
        small.
        """
        path = Path(tokenizer_json)
        if not path.is_file():
            raise InputMissing("tokenizer file does not exist", where=str(path), hint="copy the whole bundle again")
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises plain Exception
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(f"not a tokenizer: {reason}", where=str(path), hint="copy the bundle again") from error
        self.max_seq_len = max_seq_len
        self.token_types = token_types
        special = self.tokenizer.num_special_tokens_to_add(True)
        if max_seq_len < special + 2:
            raise ConfigError(f"max_seq_len {max_seq_len} leaves no room for text", hint=f"at least {special + 2}")
        self.pad_id = _pad_id(self.tokenizer)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length=max_seq_len, strategy="longest_first", direction="right")

    def encode(self, examples: Sequence[Example], labels: Sequence[str] | None) -> Encoded:
        """Encode examples; `labels` gives each label its number, None leaves all labels at -1.

        Raises DataError on a label that is not in `labels`, or a text without a token.
        """
        numbers = {label: number for number, label in enumerate(labels or ())}
        tokens: list[np.ndarray] = []
        types: list[np.ndarray] = []
        lengths = np.zeros(len(examples) + 1, np.int64)
        targets = np.full(len(examples), -1, np.int64)
        truncated = 0
        for start in range(0, len(examples), EXAMPLES_AT_ONCE):
            part = examples[start : start + EXAMPLES_AT_ONCE]
            inputs = [e.text if e.text_pair is None else (e.text, e.text_pair) for e in part]
            for index, encoding in enumerate(self.tokenizer.encode_batch_fast(inputs), start=start):
                ids = encoding.ids
                if not ids:
                    raise DataError(f"the text of example {index + 1} gives no token", hint="remove the example")
                lengths[index + 1] = len(ids)
                truncated += bool(encoding.overflowing)
                tokens.append(np.array(ids, np.int32))
                if self.token_types:
                    types.append(np.array(encoding.type_ids, np.int8))
            if labels is not None:
                targets[start : start + len(part)] = [_number(example, numbers) for example in part]
        return Encoded(
            tokens=np.concatenate(tokens) if tokens else np.zeros(0, np.int32),
            starts=np.cumsum(lengths),
            type_ids=(np.concatenate(types) if types else np.zeros(0, np.int8)) if self.token_types else None,
            labels=targets,
            truncated=truncated,
            pad_id=self.pad_id,
            max_seq_len=self.max_seq_len,
        )


def _number(example: Example, numbers: dict[str, int]) -> int:
    if example.label is None:
        return -1
    if example.label not in numbers:
        raise DataError(f"unknown label {quoted(example.label)}", hint=f"the bundle has {len(numbers)} labels")
    return numbers[example.label]


def _pad_id(tokenizer: Tokenizer) -> int:
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    for token in PAD_TOKENS:
        if (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    return 0
