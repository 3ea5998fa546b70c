"""Texts to token ids with the bundle's tokenizer.json; the Rust `tokenizers` package does the work.

Padding is left to the batches, where it costs least: the file's own padding and truncation settings are
ignored.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from edge_far.errors import BundleError, ConfigError, DataError
from edge_far.quoting import quoted
from edge_far.texts.data import Example
from edge_far.texts.shorten import Shortener
from edge_far.texts.targets import Targets, TokenTargets, collector
from edge_far.texts.tokenizer_file import load_tokenizer, tokenize

__all__ = ["ROUNDED", "Encoded", "Encoder"]

ROUNDED = 8  # tokens: few shapes, and aligned rows
EXAMPLES_AT_ONCE = 256
BYTES_AT_ONCE = 1 << 16
MOST_TOKENS = 2**31  # ids are int32 here
MOST_SEGMENTS = 127  # and segments int8; no model has so many
SHARED = 3
NO_PAIR = "give it in the field text_pair, or with --text-pair"
PAD_TOKENS = ("[PAD]", "<pad>")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of many examples in one flat array: a data set costs its tokens and little more.

    tokens int32 [T]; type_ids int8 [T] or None; starts int64 [N + 1], example i being
    tokens[starts[i]:starts[i+1]]; labels as a task has them, int64 [N] (-1 where there is none) or float32
    [N, outputs] (NaN); truncated is the number of examples cut to max_seq_len tokens.

    Where every token has a target, labels has a row a token, [T, ...], `nothing` is that of padding, and `places` says
    where a token was found, int32 [T, ...]. Where a long text became several rows, `examples` is the number of each
    one's example, int64 [N], and `texts` has the examples.
    """

    tokens: np.ndarray
    starts: np.ndarray
    type_ids: np.ndarray | None
    labels: np.ndarray
    truncated: int
    pad_id: int
    max_seq_len: int
    nothing: np.ndarray | None = None
    places: np.ndarray | None = None
    examples: np.ndarray | None = None
    texts: tuple[Example, ...] = ()

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 [N]."""
        return np.diff(self.starts)

    @property
    def padded_length(self) -> int:
        """Tokens to which the longest example is padded (batches.py): a multiple of 8, or the maximum."""
        longest = int(self.lengths.max(initial=1))
        return max(longest, min(-(-longest // ROUNDED) * ROUNDED, self.max_seq_len))

    @property
    def ids(self) -> list[np.ndarray]:
        """Token ids of each example, as int32 views."""
        return [self.tokens[start:stop] for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True)]

    def targets_of(self, indices: np.ndarray, length: int | None = None) -> np.ndarray:
        """Return the targets of examples, a row each; of tokens padded to `length`, by default as the longest is."""
        if self.nothing is None:
            return self.labels[indices]
        starts, lengths = self.starts[indices], self.lengths[indices]
        length = self.padded_length if length is None else length
        mask = np.arange(length) < lengths[:, None]
        found = np.broadcast_to(self.nothing, (*mask.shape, *self.nothing.shape)).copy()
        found[mask] = self.labels[(starts[:, None] + np.arange(length))[mask]]
        return found

    def without(self, left_out: Collection[int]) -> Encoded:
        """Return the others; `left_out` counts the examples from 0."""
        kept = ~np.isin(np.arange(len(self)) if self.examples is None else self.examples, list(left_out))
        tokens = np.repeat(kept, self.lengths)
        return replace(
            self,
            tokens=self.tokens[tokens],
            starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths[kept])]),
            type_ids=None if self.type_ids is None else self.type_ids[tokens],
            labels=self.labels[kept if self.nothing is None else tokens],
            places=None if self.places is None else self.places[tokens],
            examples=None if self.examples is None else self.examples[kept],
        )


class Encoder:
    """Encodes examples as the model's tokenizer does, special tokens included."""

    def __init__(
        self, tokenizer_json: Path, max_seq_len: int, *, token_types: bool = True, vocabulary: int | None = None
    ) -> None:
        """Load `tokenizer_json`; `token_types` keeps the segment of each token for models that have segments.

        `vocabulary` is the number of rows of the model's table, which ids must stay below (None: not checked).
        Raises InputMissing, BundleError when the file is not a tokenizer of this model, ConfigError when max_seq_len
        is too small.
        """
        path = Path(tokenizer_json)
        self.tokenizer = load_tokenizer(path)
        self.max_seq_len = max_seq_len
        self.vocabulary = vocabulary
        self.token_types = token_types
        special = self.tokenizer.num_special_tokens_to_add(True)
        if max_seq_len < special + 2:
            raise ConfigError(f"max_seq_len {max_seq_len} leaves no room for text", hint=f"at least {special + 2}")
        self.pad_id = _pad_id(self.tokenizer)
        if vocabulary is not None and self.pad_id >= vocabulary:
            raise BundleError(
                f"pads with the id {self.pad_id}, and the model knows {vocabulary}",
                where=str(path),
                hint="export a bundle whose tokenizer fits its model",
            )
        self.tokenizer.no_padding()
        self._cut_what_is_over()
        self._shortener = Shortener(self.tokenizer, max_seq_len)

    def encode(
        self,
        examples: Iterable[Example],
        labels: Sequence[str] | Targets | TokenTargets | None,
        left_out: dict[int, str] | None = None,
    ) -> Encoded:
        """Encode examples; `labels` is a task's `targets`, or gives each name its number; None leaves all at -1.

        Examples are taken one by one and not kept, so that long texts never lie in memory together, but for a task that
        reads long pairs in windows (targets.py). Raises DataError on a label that is not in `labels`, and, after the
        last example, on a text that the model cannot read: without a token, or with a token it does not know. With
        `left_out` such texts are left out, and told there: why, by their numbers from 0.
        """
        # uint32, for a tokenizer.json may hold any; then int8, int64
        tokens, types, ends = array("I"), array("b"), array("q", [0])
        found = collector(labels)
        truncated, kept, owners = 0, list[Example](), list[int]()
        for part in self._batches(examples, self._question_cut if found.windows else self._shortener.shorten):
            rows = self._windows(part) if found.windows else self._encodings(part, found.asks_places)
            for _, encoding in rows:
                truncated += bool(encoding.overflowing) and not found.windows
                tokens.extend(encoding.ids)
                ends.append(len(tokens))
                if self.token_types:
                    types.extend(_segments(encoding.type_ids))
            found.add([part[number] for number, _ in rows], [encoding for _, encoding in rows])
            if found.windows:
                owners += [len(kept) + number for number, _ in rows]
                kept += part
        encoded = Encoded(
            tokens=np.asarray(tokens).view(np.int32),
            starts=np.asarray(ends),
            type_ids=np.asarray(types) if self.token_types else None,
            labels=found.labels(),
            truncated=truncated,
            pad_id=self.pad_id,
            max_seq_len=self.max_seq_len,
            nothing=found.nothing,
            places=found.places(),
            examples=np.array(owners, np.int64) if found.windows else None,
            texts=tuple(kept),
        )
        unreadable = self._unreadable(encoded)
        if not unreadable:
            return encoded
        if left_out is None:
            number, reason = next(iter(unreadable.items()))
            text = self.tokenizer.decode(encoded.ids[number].view(np.uint32).tolist(), skip_special_tokens=False)
            raise DataError(f"the text of example {number + 1} {reason}: {text[:60]!r}", hint="remove the example")
        owned = {
            number if encoded.examples is None else int(encoded.examples[number]): why
            for number, why in unreadable.items()
        }
        left_out.update(owned)
        return encoded.without(owned)

    def _unreadable(self, encoded: Encoded) -> dict[int, str]:
        """Return the examples, by number from 0, that a graph would fail on without a word why, and what they have."""
        wrong = dict.fromkeys(np.flatnonzero(encoded.lengths == 0).tolist(), "gives no token")
        tokens, known = encoded.tokens.view(np.uint32), MOST_TOKENS if self.vocabulary is None else self.vocabulary
        places = np.flatnonzero(tokens >= known)
        examples = np.searchsorted(encoded.starts, places, side="right") - 1
        for example, number in zip(examples.tolist(), tokens[places].tolist(), strict=True):
            token = self.tokenizer.id_to_token(number)
            wrong[example] = f"has the token {token!r} (id {number}), and the model knows {known} tokens"
        return dict(sorted(wrong.items()))

    def _cut_what_is_over(self) -> None:
        self.tokenizer.enable_truncation(max_length=self.max_seq_len, strategy="longest_first", direction="right")

    def _encodings(self, part: Sequence[Example], offsets: bool) -> list[tuple[int, Encoding]]:
        """Return one encoding an example, with the example's number."""
        inputs = [e.text if e.text_pair is None else (e.text, e.text_pair) for e in part]
        return list(enumerate(tokenize(self.tokenizer, inputs, offsets=offsets)))

    def _windows(self, part: Sequence[Example]) -> list[tuple[int, Encoding]]:
        """Return the windows of each example, with the example's number: the text, and a part of its pair each.

        Two that follow each other share a third of what fits.
        """
        self.tokenizer.enable_truncation(
            max_length=self.max_seq_len,
            strategy="only_second",
            direction="right",
            stride=self.max_seq_len // SHARED,
        )
        try:
            found = self._encodings(part, True)
            return [(number, each) for number, encoding in found for each in (encoding, *encoding.overflowing)]
        finally:
            self._cut_what_is_over()

    def _question_cut(self, example: Example) -> Example:
        """Return an example whose text leaves more than half of the tokens to its pair; DataError without a pair."""
        if example.text_pair is None:
            raise DataError(f"the question {quoted(example.text[:60])} has no text to be answered from", hint=NO_PAIR)
        most = self.max_seq_len // 2 - self.tokenizer.num_special_tokens_to_add(True)
        ((_, encoding),) = self._encodings([self._shortener.shorten(Example(example.text))], True)
        asked = [end for side, (_, end) in zip(encoding.sequence_ids, encoding.offsets, strict=True) if side == 0]
        return example if len(asked) <= most else replace(example, text=example.text[: asked[most - 1]])

    def _batches(self, examples: Iterable[Example], shortened: Callable[[Example], Example]) -> Iterator[list[Example]]:
        """Yield what goes to the tokenizer at once: while it works it takes some 300 bytes for each of theirs."""
        part: list[Example] = []
        size = 0
        for example in map(shortened, examples):
            part.append(example)
            size += len(example.text.encode()) + len((example.text_pair or "").encode())
            if len(part) == EXAMPLES_AT_ONCE or size >= BYTES_AT_ONCE:
                yield part
                part, size = [], 0
        if part:
            yield part


def _segments(found: list[int]) -> array[int]:
    try:
        return array("b", found)
    except OverflowError:
        return array("b", [min(segment, MOST_SEGMENTS) for segment in found])


def _pad_id(tokenizer: Tokenizer) -> int:
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    for token in PAD_TOKENS:
        if (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    return 0
