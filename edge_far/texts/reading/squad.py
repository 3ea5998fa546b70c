"""SQuAD's JSON, 1.1 and 2.0: questions on paragraphs, with the spans that answer them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from edge_far.texts.reading.lines import Lines
from edge_far.texts.reading.problems import FileProblems, RecordProblem

__all__ = ["squad_records"]

HINT = "a .json file is SQuAD's; for one object a line name the file .jsonl"


def squad_records(lines: Lines, problems: FileProblems) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the number of each question, from 1, and its record; the whole file is one document.

    `text` is the question, `text_pair` the paragraph, `label` its answers: none where is_impossible says so, or the
    plausible ones are all there are. A document that is not SQuAD's ends the reading.
    """
    # A line may hold the whole document, longer than a line of any other file.
    whole = lines.rest()
    number = 0
    try:
        for article in _list(json.loads(whole), "data"):
            for paragraph in _list(article, "paragraphs"):
                for question in _list(paragraph, "qas"):
                    number += 1
                    yield number, _record(paragraph, question)
    except (ValueError, RecursionError) as error:
        problems.add(max(1, number), RecordProblem(f"broken JSON: {error}"[:200], HINT), last=True)
    except RecordProblem as wrong:
        problems.add(max(1, number), wrong, last=True)


def _record(paragraph: Mapping[str, Any], question: object) -> Mapping[str, object]:
    if not isinstance(question, dict):
        raise RecordProblem("a question is no object", HINT)
    impossible = question.get("is_impossible") is True
    answers = question.get("answers")
    return {
        "text": question.get("question"),
        "text_pair": paragraph.get("context"),
        **({"label": [] if impossible else answers} if impossible or answers is not None else {}),
    }


def _list(found: object, name: str) -> list[Any]:
    inner = found.get(name) if isinstance(found, dict) else None
    if not isinstance(inner, list):
        raise RecordProblem(f"no list '{name}' where SQuAD's JSON has one", HINT)
    return inner
