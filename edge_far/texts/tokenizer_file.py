"""A bundle's tokenizer.json, loaded and called: whatever the Rust package does then, a failure is one BundleError."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from edge_far.errors import BundleError, InputMissing, StorageError
from edge_far.process.limits import no_threads
from edge_far.process.rust import RustFailure, calling_rust
from edge_far.storage import hint_of

__all__ = ["load_tokenizer", "tokenize"]


def load_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a file; raises InputMissing, BundleError."""
    if not path.is_file():
        raise InputMissing("tokenizer file does not exist", where=str(path), hint="copy the whole bundle again")
    try:
        content = path.read_bytes()
        with calling_rust():
            return Tokenizer.from_buffer(content)
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=str(path), hint=hint_of(error)) from error
    except RustFailure as error:
        raise BundleError(f"not a tokenizer: {error}", where=str(path), hint="copy the bundle again") from error


def tokenize(
    tokenizer: Tokenizer, inputs: Sequence[str | tuple[str, str]], *, special_tokens: bool = True, offsets: bool = False
) -> list[Encoding]:
    """Return the encoding of each text or pair; raises BundleError, and Unavailable where no thread starts.

    Without `offsets` it does not know where its tokens lie in the text, and takes less time.
    """
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    try:
        with calling_rust():
            return list(encode(inputs, add_special_tokens=special_tokens))
    except RustFailure as error:
        if "ThreadPoolBuildError" in str(error):
            raise no_threads("the tokenizer's threads do not start") from error
        raise BundleError(
            f"the tokenizer cannot encode a text: {error}", hint="export a bundle with a sound tokenizer.json"
        ) from error
