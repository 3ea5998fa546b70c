"""The tokenizer.json for the bundle: it gives the ids that transformers gives, all within the model's table.

A device reads tokenizer.json with the Rust package alone. transformers may read more (tokenizer_config.json,
vocab.txt), and what it does with all of it is what the model was trained with. So both encode some texts here.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from edge_far.errors import InputMissing, Unavailable
from edge_far.models.config import ModelConfig
from edge_far.models.files import check_file, is_named_here, read_object
from edge_far.models.guard import guarded, transformers_package
from edge_far.texts.data import Example
from edge_far.texts.encode import Encoded

__all__ = ["TokenizerFile", "choose_tokenizer", "unknown_share"]

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
_OBJECTS = (TOKENIZER, SETTINGS, "special_tokens_map.json", "added_tokens.json", "vocab.json")
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_SAVE = "save it beside the model: tokenizer.save_pretrained(DIRECTORY)"
# What transformers reads of tokenizer_config.json without looking at its type; null is the same as absent.
_SETTING_TYPES: dict[str, tuple[type, str]] = {
    "tokenizer_class": (str, "a text"),
    "do_lower_case": (bool, "true or false"),
    "strip_accents": (bool, "true, false or null"),
    "tokenize_chinese_chars": (bool, "true or false"),
    "add_prefix_space": (bool, "true or false"),
    "added_tokens_decoder": (dict, "an object"),
}
COMPARED = 64  # training texts that are encoded both ways
VARIED = 8  # of which so many also in capitals, as a title and with an accent: what a normaliser may change
CHARACTERS = 1000

_Pair = tuple[str, str | None]


@dataclass(frozen=True)
class TokenizerFile:
    """The file for the bundle, and `warnings` for the user; a file that was `made` here goes with this object."""

    path: Path
    warnings: tuple[str, ...] = ()
    made: bool = False

    def __post_init__(self) -> None:
        if self.made:
            weakref.finalize(self, shutil.rmtree, self.path.parent, True)


def choose_tokenizer(model: ModelConfig, examples: Sequence[Example]) -> TokenizerFile:
    """Return a tokenizer.json whose ids are those of transformers' AutoTokenizer, compared on `examples`.

    Raises InputMissing where there is no tokenizer, Unavailable for one that cannot be read, that transformers reads
    otherwise, or that has ids the model's table has not.
    """
    directory = model.path.parent
    _check_files(directory)
    present = directory / TOKENIZER
    own = _load(present) if present.is_file() else None
    theirs = _transformers_tokenizer(model)
    texts = _texts(examples, own)
    warnings = _warn_of_padding(model, theirs)
    if own is not None:
        difference = _difference(own, theirs, texts)
        if difference is None or _is_a_guess(own, theirs, directory, texts):
            _refuse_foreign_ids(own, model, present)
            if difference is not None:
                warnings += (f"{present} is taken as it is; without {SETTINGS} transformers would read it otherwise",)
            return TokenizerFile(present, warnings)
        if not is_named_here(directory / SETTINGS):
            raise Unavailable(f"transformers reads it otherwise: {difference}", where=str(present), hint=_SAVE)
        warnings += (f"{present}: by {SETTINGS} transformers reads it otherwise, and its ids are taken: {difference}",)
    converted = _convert(theirs, directory, warnings)
    backend = _load(converted.path)
    if still := _difference(backend, theirs, texts):
        raise Unavailable(f"no tokenizer.json gives the ids of transformers: {still}", where=str(directory), hint=_SAVE)
    _refuse_foreign_ids(backend, model, directory)
    return converted


def unknown_share(tokenizer: Tokenizer, encoded: Encoded) -> float:
    """Return the share of unknown tokens among those of the texts, [CLS] and the like apart."""
    unknown = getattr(tokenizer.model, "unk_token", None)
    number = tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None
    if number is None:
        return 0.0
    special = [id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special and id != number]
    words = encoded.tokens[~np.isin(encoded.tokens, special)]
    return float((words == number).mean()) if words.size else 0.0


def _check_files(directory: Path) -> None:
    named = [name for name in (TOKENIZER, *_VOCABULARIES) if is_named_here(directory / name)]
    if not named:
        raise InputMissing(f"no tokenizer here: {TOKENIZER} is missing", where=str(directory), hint=_SAVE)
    if TOKENIZER not in named and ("vocab.json" in named) != ("merges.txt" in named):
        lacking = "merges.txt" if "vocab.json" in named else "vocab.json"
        raise InputMissing(f"half a tokenizer here: {lacking} is missing", where=str(directory), hint=_SAVE)
    for name in (*_OBJECTS, *_VOCABULARIES):
        if is_named_here(directory / name):
            if name in _OBJECTS:
                read_object(directory / name)
            else:
                check_file(directory / name)
    if is_named_here(directory / SETTINGS):
        settings = read_object(directory / SETTINGS)
        for key, (kind, wanted) in _SETTING_TYPES.items():
            if settings.get(key) is not None and not isinstance(settings[key], kind):
                raise Unavailable(f"{key} is not {wanted}", where=str(directory / SETTINGS), hint=_SAVE)


def _load(path: Path) -> Tokenizer:
    with guarded("not a tokenizer that the Rust package reads", str(path), _SAVE):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


def _transformers_tokenizer(model: ModelConfig) -> Any:
    """Return what AutoTokenizer makes of the directory; it never runs code that lies there."""
    directory = model.path.parent
    auto = transformers_package().AutoTokenizer
    config = type(model.config)(**model.config.to_dict())
    named = model.document.get("tokenizer_class")
    if isinstance(named, str):
        config.tokenizer_class = named
    where = directory
    if is_named_here(directory / SETTINGS):
        where = directory / SETTINGS
        named = read_object(where).get("tokenizer_class", named)
    said = f" (tokenizer_class {named})" if named is not None else ""
    with guarded(f"transformers cannot read this tokenizer{said}", str(where), f"{_SAVE}, as {TOKENIZER}"):
        return auto.from_pretrained(directory, config=config, trust_remote_code=False, local_files_only=True)


def _warn_of_padding(model: ModelConfig, theirs: Any) -> tuple[str, ...]:
    """Where positions are counted from config.json's padding, another one in the tokenizer shifts them all."""
    stated, padding = model.config.pad_token_id, getattr(theirs, "pad_token_id", None)
    if model.architecture.first_position != "padding" or padding in (None, stated):
        return ()
    return (f"{model.path}: pad_token_id is {stated}, and the tokenizer pads with {padding}: do they belong together?",)


def _convert(theirs: Any, directory: Path, warnings: tuple[str, ...]) -> TokenizerFile:
    """Save what transformers made as a tokenizer.json of its own."""
    backend = getattr(theirs, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise Unavailable(
            f"{type(theirs).__name__} has no form that the Rust package reads", where=str(directory), hint=_SAVE
        )
    file = TokenizerFile(Path(tempfile.mkdtemp(prefix="edge-far-")) / TOKENIZER, warnings, made=True)
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(file.path))
    return file


def _texts(examples: Sequence[Example], tokenizer: Tokenizer | None) -> list[_Pair]:
    """Return texts from all over the data, words of the vocabulary, and variants that a normaliser would change."""
    step = max(1, len(examples) // COMPARED)
    chosen: list[_Pair] = [
        (example.text[:CHARACTERS], example.text_pair[:CHARACTERS] if example.text_pair else None)
        for example in examples[::step][:COMPARED]
    ]
    varied = [text for text, _ in chosen[:VARIED]] + _words(tokenizer)
    chosen += [(form, None) for text in varied for form in (text, text.upper(), text.title(), f"{text} é")]
    chosen.append((chosen[0][0], chosen[-1][0]))
    return chosen


def _words(tokenizer: Tokenizer | None) -> list[str]:
    """Return a few texts of words that the tokenizer has, those with capitals first."""
    if tokenizer is None:
        return ["the quick brown fox"]
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    words = [word for word in tokenizer.get_vocab(False) if word.isalnum() and word not in added]
    words.sort()
    capitals = [word for word in words if word != word.lower()]
    some = capitals[:: 1 + len(capitals) // VARIED] + words[:: 1 + len(words) // VARIED]
    return [" ".join(some)] if some else ["the quick brown fox"]


def _difference(own: Tokenizer, theirs: Any, texts: Sequence[_Pair]) -> str | None:
    """Return the first text that the two encode otherwise, and how, or None."""
    for text, pair in texts:
        ours = _our_ids(own, text, pair)
        other = _their_ids(theirs, text, pair)
        if ours != other:
            return f"{text[:40]!r} gives {_some(other)} there and {_some(ours)} by {TOKENIZER}"
    return None


def _our_ids(own: Tokenizer, text: str, pair: str | None) -> list[int]:
    with guarded("the Rust tokenizer cannot encode a text", TOKENIZER, _SAVE):
        return list(own.encode(text, pair).ids)


def _their_ids(theirs: Any, text: str, pair: str | None) -> list[int]:
    with guarded("transformers cannot encode a text", type(theirs).__name__, _SAVE):
        return [int(number) for number in theirs(text, pair)["input_ids"]]


def _is_a_guess(own: Tokenizer, theirs: Any, directory: Path, texts: Sequence[_Pair]) -> bool:
    """Say whether transformers, told nothing but the model's type, built another kind of tokenizer than is here.

    Then tokenizer.json is the only word on it, unless it frames a text with other tokens ([CLS], [SEP]).
    """
    if is_named_here(directory / SETTINGS):
        return False
    backend = getattr(theirs, "backend_tokenizer", None)
    if backend is None or type(backend.model) is type(own.model):
        return False
    text = texts[0][0]
    ours, other = _our_ids(own, text, None), _their_ids(theirs, text, None)
    return bool(ours and other) and (ours[0], ours[-1]) == (other[0], other[-1])


def _refuse_foreign_ids(tokenizer: Tokenizer, model: ModelConfig, where: Path) -> None:
    """Refuse a token that the model's embedding table has no row for: the first text with it would end everything."""
    token, number = max(tokenizer.get_vocab(True).items(), key=lambda item: item[1], default=("", -1))
    if number >= model.vocabulary:
        raise Unavailable(
            f"the token {token[:40]!r} has the id {number}, and the model's table has {model.vocabulary} rows"
            f" (vocab_size)",
            where=str(where),
            hint="save the tokenizer that the model was trained with, or resize_token_embeddings() and train",
        )


def _some(ids: Sequence[int]) -> str:
    shown = " ".join(map(str, ids[:8]))
    return f"{shown} ..." if len(ids) > 8 else shown
