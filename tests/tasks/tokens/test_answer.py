"""Spans that answer: SQuAD's measures by its definition, windows, no answer and its threshold, what is told."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edge_far.daemon.gate.verdict import Answers as GateAnswers
from edge_far.daemon.gate.verdict import GateSettings, decide
from edge_far.errors import ConfigError, DataError
from edge_far.tasks.tokens.answer import Answer
from edge_far.tasks.tokens.spans import best_span, best_threshold, candidates, squad_scores
from edge_far.texts.data import Example
from edge_far.texts.encode import Encoded, Encoder

TASK = Answer()
WORDS = [f"w{number}" for number in range(40)]


@pytest.mark.parametrize(
    ("said", "golds", "exact", "f1"),
    [
        ("The  Panther!", ["panther"], 1, 1),
        ("a red panther", ["red bear", "the bear"], 0, 0.5),
        ("panther panther", ["panther"], 0, 2 / 3),
        ("", [], 1, 1),
        ("panther", [], 0, 0),
        ("", ["panther"], 0, 0),
        ("the", ["a"], 1, 1),  # nothing is left of both
        ("1,000 m", ["1000 m"], 1, 1),
        ("theory", ["ory"], 0, 0),
    ],
)
def test_squad_s_measures(said: str, golds: list[str], exact: float, f1: float) -> None:
    assert squad_scores(said, golds) == pytest.approx((exact, f1))


def test_the_best_span_is_that_of_a_search(seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(6, 40, 2)).astype(np.float32)
    targets = np.where(random.random((6, 40, 1)) < 0.3, -1.0, 0.0).repeat(2, axis=2)
    targets[5] = -1
    spans, scores, none = best_span(logits, targets)
    for row in range(6):
        sums = {
            (first, last): float(logits[row, first, 0]) + float(logits[row, last, 1])
            for first in range(1, 40)
            for last in range(first, min(40, first + 30))
            if targets[row, first, 0] >= 0 and targets[row, last, 1] >= 0
        }
        best = max(sums, key=lambda place: sums[place], default=(0, 0))
        assert tuple(spans[row]) == best and scores[row] == pytest.approx(sums.get(best, -math.inf))
        assert none[row] == pytest.approx(float(logits[row, 0].sum()))
        places = np.stack([np.arange(40), np.arange(40) + 1], axis=1)
        ranked = candidates(logits[row], targets[row], places, "x" * 40, 5)
        assert [each.score for each in ranked] == pytest.approx(sorted(sums.values(), reverse=True)[:5])


def test_the_threshold_is_the_best_there_is() -> None:
    random = np.random.default_rng(1)
    odds, said, silent = random.normal(size=30).round(1), random.random(30), random.integers(0, 2, 30).astype(float)
    found = best_threshold(odds, said, silent)
    totals = [np.where(odds <= limit, said, silent).sum() for limit in (*odds, -9.0)]
    assert np.where(odds <= found, said, silent).sum() == pytest.approx(max(totals))
    assert best_threshold(np.array([1.0]), np.array([1.0]), np.array([0.0])) == 1.5
    assert best_threshold(np.array([-math.inf]), np.array([0.0]), np.array([1.0])) < -1e6


def encoder(directory: Path, length: int) -> Encoder:
    """Return one of words, with [CLS] before and [SEP] behind the text and its pair."""
    vocabulary = {token: number for number, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(directory / "t.json"))
    return Encoder(directory / "t.json", length)


def example(question: str, words: range, answer: str | None) -> Example:
    label = [] if answer is None else [[-1, answer]]
    return Example(question, " ".join(WORDS[number] for number in words), json.dumps(label))


def test_a_long_pair_is_read_in_windows(tmp_path: Path) -> None:
    encoded = encoder(tmp_path, 12).encode(
        [example("w30", range(16), "w7 w8"), example("w31", range(3), None)], TASK.targets
    )
    # 12 tokens less 3 special ones and the question leave 8, of which 4 are shared with the next window.
    assert encoded.examples is not None and encoded.examples.tolist() == [0, 0, 0, 1] and encoded.truncated == 0
    read = [[WORDS[token - 4] for token in ids if token >= 4][1:] for ids in encoded.ids]
    assert [words[0] + "-" + words[-1] for words in read] == ["w0-w7", "w4-w11", "w8-w15", "w0-w2"]
    targets = encoded.targets_of(np.arange(4))
    assert (targets == 1).argmax(axis=1).tolist() == [[0, 0], [6, 7], [0, 0], [0, 0]], "whole in one window alone"
    assert targets[1, :, 0].tolist() == [0, -1, -1, 0, 0, 0, 1, 0, 0, 0, 0, -1]
    assert targets[3, :, 0].tolist() == [1, -1, -1, 0, 0, 0, *[-1] * 6]
    assert TASK.strata(targets).tolist() == [0, 1, 0, 0]
    assert encoded.without([0]).examples.tolist() == [1]  # type: ignore[union-attr]


def test_a_long_question_leaves_half_to_its_pair(tmp_path: Path) -> None:
    encoded = encoder(tmp_path, 16).encode([example(" ".join(WORDS[:30]), range(30, 34), "w31")], TASK.targets)
    assert [WORDS[token - 4] for token in encoded.ids[0] if token >= 4] == [*WORDS[:5], *WORDS[30:34]]
    with pytest.raises(DataError, match="the question 'w1' has no text to be answered from"):
        encoder(tmp_path, 16).encode([Example("w1")], TASK.reading)


def logits_for(encoded: Encoded, said: dict[int, tuple[int, int, float]], none: float) -> np.ndarray:
    """Return logits of all rows: of no answer, and of one span for some, first and last token and their sum."""
    found = np.zeros((len(encoded), int(encoded.lengths.max()), 2), np.float32)
    found[:, 0] = none / 2
    for row, (first, last, score) in said.items():
        found[row, first, 0] = found[row, last, 1] = score / 2
    return found


def test_figures_are_of_questions_over_all_windows(tmp_path: Path) -> None:
    examples = [example("w30", range(16), "w7 w8"), example("w31", range(3), None), example("w32", range(3), "w1 w2")]
    encoded = encoder(tmp_path, 12).encode(examples, TASK.targets)
    logits = logits_for(encoded, {0: (4, 4, 3.0), 1: (6, 7, 8.0), 3: (3, 3, 2.0), 4: (4, 4, 9.0)}, none=4.0)
    targets = encoded.targets_of(np.arange(5))

    def measured(task: Answer, fit: bool) -> dict[str, float]:
        evaluation = task.evaluation(encoded)
        for rows in (np.array([4, 0, 1]), np.array([3, 2])):
            evaluation.add(logits[rows], targets[rows], rows)
        result = evaluation.result(fit=fit)
        assert result.examples == 3
        return {**result.figures, **result.settings}

    plain = measured(TASK, fit=False)
    assert plain == pytest.approx({"answer_f1": (1 + 0 + 2 / 3) / 3, "exact_match": 1 / 3})
    fitted = measured(TASK, fit=True)
    assert fitted["answer_f1"] == pytest.approx((1 + 1 + 2 / 3) / 3)
    again = TASK.fitted(fitted)
    assert again.threshold == fitted["null_threshold"] and measured(again, fit=False) == pytest.approx(fitted)
    told = again.answers(logits, 2, encoded)
    assert [answer["answer"] for answer in told] == ["w7 w8", None, "w1"]
    assert told[0]["start"] == 21 and examples[0].text_pair[21:26] == "w7 w8" and len(told[0]["top"]) == 2  # type: ignore[index]
    assert TASK.answers(logits, 1, encoded)[1]["answer"] == "w0"
    assert [again.answer_text(answer).strip() for answer in told] == ["w7 w8", "-", "w1"]
    # The gate compares questions: the best span of all windows of each, at the threshold.
    assert TASK.credits(targets, logits, encoded) == pytest.approx([1, 0, 2 / 3], abs=1e-12)
    assert again.credits(targets, logits, encoded) == pytest.approx([1, 1, 2 / 3], abs=1e-12)
    assert TASK.credits(targets[3:], logits[3:], encoded, np.arange(3, 5)) == pytest.approx([0, 2 / 3], abs=1e-12)
    device = decide(
        GateAnswers(TASK, targets, logits, logits, encoded), settings=GateSettings(0.95, 0.9, min_examples=1)
    ).device
    assert device is not None and device.examples == 3
    assert device.candidate == pytest.approx({**plain, "answer_f1": 5 / 9})
    # A choice of a rung compares windows.
    said = TASK.said(logits, targets)
    assert said.tolist()[:2] == [[4, 4], [6, 7]] and TASK.credits(targets, logits)[[1, 4]].tolist() == [1.0, 2 / 3]
    assert again.says_one_thing(targets, logits) is False


def test_the_loss_and_windows_alone(tmp_path: Path) -> None:
    encoded = encoder(tmp_path, 12).encode(
        [example("w30", range(3), "w1 w2"), example("w1", range(3), None)], TASK.targets
    )
    evaluation = TASK.evaluation()
    evaluation.add(np.zeros((2, 8, 2), np.float32), encoded.targets_of(np.arange(2)))
    found = evaluation.result()
    assert found.loss == pytest.approx(math.log(4)) and found.figures.keys() == {"overlap_f1"}  # four can be said
    assert TASK.chance(encoded.labels) == pytest.approx(math.log(4))
    assert TASK.known(encoded.targets_of(np.arange(2))).all()
    unlabelled = encoder(tmp_path, 12).encode([Example("w1", "w2")], TASK.reading)
    assert not TASK.known(unlabelled.targets_of(np.arange(1))).any()
    with pytest.raises(ValueError, match="no labelled example"):
        TASK.evaluation().result()


def test_there_must_be_an_answer() -> None:
    assert Answer.of_labels(["[]", '[[0, "w1"]]'], []).info.outputs == 2
    with pytest.raises(DataError, match="no example of the training data has an answer"):
        Answer.of_labels(["[]"], [])
    with pytest.raises(ConfigError, match="no labels to reserve"):
        Answer.of_labels(['[[0, "w1"]]'], ["reserved-0"])
