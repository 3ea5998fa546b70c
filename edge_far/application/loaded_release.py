"""One release in memory: verified, loaded, and asked from any thread.

Refuses to know that there are other releases (model.py).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_far.daemon.release_files import ID, MANIFEST, verify_files
from edge_far.device.evaluation import predict_logits
from edge_far.device.file_model import FileModel, is_released_model
from edge_far.device.reading_length import reading_length
from edge_far.errors import DataError, InputMissing
from edge_far.json_file import Damaged, read_document
from edge_far.process.rust import leaving_streams_alone
from edge_far.texts.data import Example
from edge_far.texts.encode import Encoder

__all__ = ["LoadedRelease", "load_verified"]


class LoadedRelease:
    """A release of the service, or a directory of `edge-far merge`; `task` is what it answers."""

    def __init__(self, directory: Path, threads: int) -> None:
        """Verify and load it; `directory` is no link. Raises InputMissing (66), DataError (65), StorageError (74).

        A release of the service is checked against the SHA-256 of its manifest, what `edge-far merge` writes against
        those of its release.json.
        """
        self.name, self._model = load_verified(directory, threads)
        self.task = self._model.task
        with leaving_streams_alone():
            length = reading_length(self._model.logits, None, self._model.max_seq_len)
            self._encoder = Encoder(self._model.tokenizer, length, token_types=self._model.token_types)
        self._encoding = threading.Lock()  # the tokenizer has settings that change while it counts a long text

    def answer(self, text: str, pair: str | None) -> Mapping[str, Any]:
        """Return what the task answers; raises DataError for a text that the model cannot read."""
        example = Example(_checked(text, "text"), _checked(pair, "pair") if pair and pair.strip() else None)
        if not text.strip():
            return self.task.no_answer(1)
        with self._encoding, leaving_streams_alone():
            encoded = self._encoder.encode([example], self.task.reading)
        logits = predict_logits(self._model.logits, encoded, self.task.info)
        return self.task.answers(logits, 1, encoded, [text])[0]


def load_verified(directory: Path, threads: int) -> tuple[str, FileModel]:
    """Return a release's name and its model, every file of which was checked once; `directory` is no link.

    Raises InputMissing (66) where there is no released model, DataError (65) for one that is damaged.
    """
    if not is_released_model(directory):
        hint = "a bundle becomes one by 'edge-far merge'"
        raise InputMissing("is no released model", where=str(directory), hint=hint)
    if not ID.fullmatch(directory.name) and not (directory / MANIFEST).exists():
        return directory.name, FileModel(directory, threads)
    release = verify_files(directory, _id_of(directory))
    return release.id, FileModel(directory, threads, verified=release.files)


def _id_of(directory: Path) -> str:
    """Return which release this is meant to be: by its name, or by its manifest where it was copied to another."""
    if not ID.fullmatch(directory.name):
        with suppress(OSError, Damaged):
            found = read_document(directory / MANIFEST, dict[str, Any]).get("id")
            if isinstance(found, str) and ID.fullmatch(found):
                return found
    return directory.name


def _checked(text: str, name: str) -> str:
    if not isinstance(text, str):
        raise DataError(f"'{name}' is a {type(text).__name__}, not a text", hint="give a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"'{name}' holds half of a surrogate pair", hint="write the character itself") from error
    return text
