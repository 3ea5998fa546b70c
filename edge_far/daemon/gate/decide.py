"""Asks the released files themselves: both models answer the held-out examples, the gate decides (in a child).

Refuses to know the store and the releases; it reads and writes files. Models are loaded one after the other,
so that the smallest board can do it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_far.daemon.gate.verdict import Answers, GateSettings, decide
from edge_far.device.board.cpu import cpu_share
from edge_far.device.board.memory import use_one_heap
from edge_far.device.evaluation import predict_logits
from edge_far.device.file_model import FileModel
from edge_far.tasks.interface import Task
from edge_far.texts.data import Example, iterate_examples
from edge_far.texts.encode import Encoded, Encoder
from edge_far.texts.places import is_place

__all__ = ["Question", "decide_on_files"]


@dataclass(frozen=True)
class Question:
    """The directories of both models, the files of labelled examples, and how the gate asks.

    `factory` and `base` go together: how much may be forgotten of the host's samples. `vocabulary` is the number of
    tokens that the models know.
    """

    candidate: Path
    current: Path
    held_out: Path
    settings: GateSettings
    max_seq_len: int
    vocabulary: int | None = None
    threads: int = 1
    factory: Path | None = None
    base: Path | None = None


def decide_on_files(question: Question) -> dict[str, object]:
    """Return the decision and its settings as a JSON document; raises DataError or InputMissing for a wrong file.

    Its `left_out` names the held-out texts that the models cannot read: why, by their numbers from 0.
    """
    use_one_heap()
    left_out: dict[str, dict[int, str]] = {}
    files = {"device": question.held_out} | ({"base": question.base} if question.base is not None else {})
    candidate = _loaded(question.candidate, question)
    task, mine = candidate.task, _answers(candidate, candidate.task, files, question, left_out)
    del candidate
    current = _loaded(question.current, question)
    theirs = _answers(current, task, {"device": files["device"]}, question, left_out)
    known = current.labels
    del current
    device, learnt = _apart(_together(task, mine["device"], theirs["device"]), known)
    base = None
    if question.base is not None:
        reference = _loaded(question.factory or question.current, question)
        asked = _answers(reference, task, {"base": question.base}, question, left_out)
        base = _together(task, mine["base"], asked["base"])
    # What a new label gains is seen apart: for it, old ones need not gain as well, but may not lose.
    gains = any(found["right"] for found in learnt.values())
    decision = decide(device, base, question.settings, superior=not gains)
    settings = dataclasses.asdict(question.settings)
    return {**decision.as_document(), "new_labels": learnt, "settings": settings, "left_out": left_out}


def _apart(answers: Answers, known: Sequence[str]) -> tuple[Answers, dict[str, dict[str, int]]]:
    """Return the answers to examples whose label the current release knows, and of the others how many are right.

    A label that it does not know can neither hide a loss nor be refused for want of history.
    """
    new = [number for number, name in enumerate(answers.task.labels) if name not in known and not is_place(name)]
    if not new:
        return answers, {}
    old = ~np.isin(answers.targets, new)
    right = answers.task.said(answers.candidate) == answers.targets
    learnt = {}
    for number in new:
        rows = answers.targets == number
        learnt[answers.task.labels[number]] = {"examples": int(rows.sum()), "right": int(right[rows].sum())}
    return Answers(answers.task, answers.targets[old], answers.candidate[old], answers.reference[old]), learnt


def _loaded(directory: Path, question: Question) -> FileModel:
    return FileModel(directory, cpu_share().threads(question.threads))


def _answers(
    model: FileModel, task: Task, files: dict[str, Path], question: Question, left_out: dict[str, dict[int, str]]
) -> dict[str, tuple[Encoded, np.ndarray]]:
    """Return the examples and logits for each file; what the first model cannot read, the others are not asked.

    `task` is the candidate's: its labels are all that there are.
    """
    encoder = Encoder(
        model.tokenizer, question.max_seq_len, token_types=model.token_types, vocabulary=question.vocabulary
    )
    result = {}
    for name, path in files.items():
        examples: Iterable[Example] = iterate_examples(path, labels=task.form) if path.stat().st_size else []
        asked_before = name in left_out
        if asked_before:
            examples = (example for number, example in enumerate(examples) if number not in left_out[name])
        encoded = encoder.encode(examples, task.targets, None if asked_before else left_out.setdefault(name, {}))
        result[name] = (encoded, predict_logits(model.logits, encoded, task.info))
    return result


def _together(task: Task, mine: tuple[Encoded, np.ndarray], theirs: tuple[Encoded, np.ndarray]) -> Answers:
    encoded, logits = mine
    targets = encoded.targets_of(np.arange(len(encoded)))
    return Answers(task, targets, logits, theirs[1], encoded if encoded.examples is not None else None)
