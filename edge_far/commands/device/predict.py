"""Classify texts with a bundle, a bundle plus a run, or a released model: from arguments, a file, or standard input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_far.commands.arguments import AtLeast, Number, add_columns_argument, add_setting, text_argument
from edge_far.commands.common import (
    add_profile_arguments,
    encoder_for,
    load_learners,
    open_checked,
    profile_for,
    run_task,
    threads_of,
)
from edge_far.commands.profile_choice import of_this_board
from edge_far.console import Console
from edge_far.errors import BundleUntrusted, StorageError, UsageError
from edge_far.profile.document import load_profile
from edge_far.quoting import shown

if TYPE_CHECKING:
    from edge_far.device.file_model import FileModel
    from edge_far.device.release import ReleasedModel
    from edge_far.tasks.interface import Task
    from edge_far.texts.data import Example
    from edge_far.texts.encode import Encoder

EXAMPLES = """examples:
  edge-far predict bundle --run run "it is far too bright in here"
  edge-far predict bundle --run run --data new.jsonl --json
  cat lines.txt | edge-far predict bundle --run run -
  edge-far predict /var/lib/edge-far/model/current "it is far too bright in here"
"""

TOLD_CHARACTERS = 4096  # of a longer text the answer holds the beginning: all texts together need not fit the memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far predict`."""
    parser.add_argument(
        "bundle",
        type=Path,
        metavar="BUNDLE",
        help="directory made by 'edge-far export' or 'edge-far merge', or a release",
    )
    parser.add_argument(
        "text",
        type=text_argument,
        nargs="*",
        default=[],
        metavar="TEXT",
        help="texts to answer; - reads one a line from standard input; a blank one has no answer",
    )
    parser.add_argument(
        "--text-pair",
        type=text_argument,
        metavar="TEXT",
        help="the second text of each pair: what is asked about",
    )
    parser.add_argument("--run", type=Path, metavar="RUN", help="a finished run of `edge-far train`")
    parser.add_argument("--data", type=Path, metavar="FILE", help="data file; labels in it are not needed")
    add_columns_argument(parser)
    parser.add_argument(
        "--top",
        action=Number,
        type=int,
        within=AtLeast(1),
        refusal=UsageError,
        default=1,
        metavar="N",
        help="the N likeliest labels or answers, below each text (default: %(default)s)",
    )
    add_setting(
        parser,
        "--max-seq-len",
        refusal=UsageError,
        metavar="N",
        help="cut texts to N tokens (default: what the model was trained on)",
    )
    add_profile_arguments(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Predict; the document has one entry a text, in order."""
    from edge_far.device.board.memory import use_one_heap
    from edge_far.device.evaluation import predict_logits

    if options.data and options.text_pair is not None:
        raise UsageError("--text-pair goes with texts", where="--text-pair", hint="give pairs in the data's text_pair")
    if bool(options.text) == bool(options.data):
        problem = "texts and --data are two sources" if options.text else "no text to classify"
        raise UsageError(problem, hint='give texts, - for standard input, or --data FILE: predict BUNDLE "a text"')
    use_one_heap()
    model, encoder, task = _load(options, console)
    told: list[str] = []
    blank: list[bool] = []
    encoded = encoder.encode(
        _noted(_examples(options, task), told, blank, whole=task.reading is not None), task.reading
    )
    if encoded.truncated:
        console.info(f"{encoded.truncated} of {len(encoded)} texts cut to {encoded.max_seq_len} tokens")
    logits = predict_logits(model.logits, encoded, task.info)
    texts = [text for text, empty in zip(told, blank, strict=True) if not empty]
    answers = iter(task.answers(logits, options.top, encoded, texts))
    predictions = [
        {"text": _short(text), **(task.no_answer(options.top) if empty else next(answers))}
        for text, empty in zip(told, blank, strict=True)
    ]
    return {
        "bundle": str(options.bundle),
        "run": str(options.run) if options.run else None,
        "task": task.info.name,
        "predictions": predictions,
    }


def _examples(options: argparse.Namespace, task: Task) -> Iterable[Example]:
    """Return what is to be classified; of arguments and of standard input also the blank ones, each in its place."""
    from edge_far.texts.data import Example, iterate_examples

    if options.data:
        return iterate_examples(options.data, labels=task.form, require_labels=False, columns=options.columns)
    if options.text == ["-"]:
        texts = _lines_of_standard_input()
        if not texts:
            raise UsageError("no text to classify: standard input is empty", hint="give at least one line")
    else:
        texts = options.text
        if not any(text.strip() for text in texts):
            raise UsageError("no text to classify: all are empty", hint="give at least one text")
    return [Example(text, options.text_pair) for text in texts]


def _lines_of_standard_input() -> list[str]:
    from edge_far.texts.reading.lines import read_texts

    try:
        return read_texts(sys.stdin.buffer, "standard input")
    except OSError as error:  # a terminal that is gone, a descriptor that is for writing
        hint = "give texts as arguments, or --data FILE"
        raise StorageError(f"cannot read: {error.strerror or error}", where="standard input", hint=hint) from error


def _short(text: str) -> str:
    return text if len(text) <= TOLD_CHARACTERS else text[: TOLD_CHARACTERS - 1] + "…"


def _noted(examples: Iterable[Example], told: list[str], blank: list[bool], *, whole: bool) -> Iterator[Example]:
    """Pass on what is to be classified, one by one; note what the answer tells of each text, and if it is blank."""
    for example in examples:
        told.append(example.text if whole else _short(example.text))
        blank.append(not example.text.strip())
        if not blank[-1]:
            yield example


def _load(options: argparse.Namespace, console: Console) -> tuple[FileModel | ReleasedModel, Encoder, Task]:
    """Return model, encoder and task of a bundle, or of a directory that holds a released model."""
    from edge_far.application.loaded_release import load_verified
    from edge_far.device.file_model import is_released_model
    from edge_far.device.reading_length import reading_length
    from edge_far.device.release import ReleasedModel
    from edge_far.texts.encode import Encoder

    directory: Path = options.bundle
    if is_released_model(directory):
        if options.run:
            raise UsageError("a released model has its run inside", where="--run", hint="leave it out")
        asked = options.profile or of_this_board()
        profile = load_profile(asked) if asked else None
        if profile is not None and profile.security.allowed_signers is not None:
            hint = "name the bundle and --run, or leave out --profile"
            raise BundleUntrusted("a released model carries no signature", where=str(directory), hint=hint)
        directory = directory.resolve()  # once: a release in between must not mix two models
        _, released = load_verified(directory, threads_of(options, profile, console))
        length = reading_length(released.logits, options.max_seq_len, released.max_seq_len)
        return released, Encoder(released.tokenizer, length, token_types=released.token_types), released.task
    bundle = open_checked(options)
    learners = load_learners(bundle, options.run)
    model = ReleasedModel(bundle, learners, threads_of(options, profile_for(options, bundle), console))
    length = reading_length(model.logits, options.max_seq_len, bundle.manifest.defaults.max_seq_len)
    return model, encoder_for(bundle, length), run_task(bundle, options.run)


def render(document: dict[str, Any]) -> str:
    """Return one line a text, whatever is in it, and below it the others of its likeliest; a blank has no answer."""
    from edge_far.tasks.registry import TASKS

    kind, lines = TASKS[document["task"]], []
    for told in document["predictions"]:
        lines.append(f"{kind.answer_text(told)}  {shown(told['text'])}")
        lines += [f"  {_candidate(each)}" for each in told.get("top", ())]
    return "\n".join(lines)


def _candidate(told: dict[str, Any]) -> str:
    """Return one of the likeliest: a label, or the text of an answer, and its probability."""
    name = told.get("label", told.get("answer"))
    return f"{'-' if name is None else shown(name):<22} {told['probability']:.3f}"
