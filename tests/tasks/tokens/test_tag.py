"""Tags of words: spans and their F1 against seqeval and by hand; which token is a word's; what is told."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from edge_far.errors import ConfigError, DataError
from edge_far.tasks.tokens.tag import NO_TAG, NO_WORD, Spans, Tag
from edge_far.texts.data import Example
from edge_far.texts.encode import Encoder
from edge_far.texts.targets import Places

TAGS = ("O", "B-city", "I-city", "B-day", "I-day")
TASK = Tag(TAGS)


def drawn(seed: int, count: int = 40, words: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Return targets, in which every third token begins no word, and logits that are often right."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, len(TAGS), (count, words))
    logits = random.normal(size=(*targets.shape, len(TAGS)))
    logits[np.arange(count)[:, None], np.arange(words), targets] += 1.5
    targets[random.random(targets.shape) < 0.3] = NO_WORD
    targets[:, 0] = np.maximum(targets[:, 0], 0)
    if seed == 2:
        targets[targets > 0] = 0  # no span is true
    if seed == 3:
        logits[..., 0] += 99  # none is said
    return targets, logits.astype(np.float32)


def as_tags(targets: np.ndarray, said: np.ndarray) -> tuple[list[list[str]], list[list[str]]]:
    rows = [(row[row >= 0], answer[row >= 0]) for row, answer in zip(targets, said, strict=True)]
    return [[TAGS[n] for n in true] for true, _ in rows], [[TAGS[n] for n in answer] for _, answer in rows]


@pytest.mark.host
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:.*ill-defined")
def test_figures_are_seqeval_s(seed: int) -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    targets, logits = drawn(seed)
    evaluation = TASK.evaluation()
    for start in range(0, len(targets), 7):
        evaluation.add(logits[start : start + 7], targets[start : start + 7])
    found, (truth, said) = evaluation.result(), as_tags(targets, TASK.said(logits))
    expected = {
        "span_f1": metrics.f1_score(truth, said),
        "precision": metrics.precision_score(truth, said),
        "recall": metrics.recall_score(truth, said),
        "word_accuracy": metrics.accuracy_score(truth, said),
    }
    assert found.figures == pytest.approx(expected, abs=1e-12)
    assert TASK.score_figures(targets, TASK.said(logits)) == pytest.approx(
        {name: expected[name] for name in ("span_f1", "word_accuracy")}, abs=1e-12
    )
    weights = np.random.default_rng(seed).integers(0, 3, len(targets))
    repeated = metrics.f1_score(
        [tags for tags, count in zip(truth, weights, strict=True) for _ in range(count)],
        [tags for tags, count in zip(said, weights, strict=True) for _ in range(count)],
    )
    assert TASK.score(targets, TASK.said(logits), weights.astype(float)) == pytest.approx(repeated, abs=1e-12)
    each = [metrics.f1_score([a], [b]) for a, b in zip(truth, said, strict=True)]
    nothing = [set(a) | set(b) == {"O"} for a, b in zip(truth, said, strict=True)]
    assert TASK.credits(targets, logits) == pytest.approx(np.where(nothing, 1.0, each), abs=1e-12)
    assert TASK.says_one_thing(targets, logits) == (seed == 3)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", []),
        ("B-city I-city O", [("city", 0, 2)]),
        ("I-city I-city", [("city", 0, 2)]),
        ("B-city B-city", [("city", 0, 1), ("city", 1, 2)]),
        ("B-city I-day", [("city", 0, 1), ("day", 1, 2)]),
        ("B-city O I-city", [("city", 0, 1), ("city", 2, 3)]),
        ("", []),
    ],
)
def test_where_spans_begin_and_end(tags: str, spans: list[tuple[str, int, int]]) -> None:
    kinds = Spans(TAGS)
    numbers = np.array([TAGS.index(tag) for tag in tags.split()], np.int64)
    found = zip(*kinds.of(np.zeros(len(numbers), np.int64), numbers), strict=True)
    assert [(kinds.names[kind], begin, end) for begin, end, kind in found] == spans


def test_a_span_does_not_go_on_in_the_next_text() -> None:
    begins, ends, _ = Spans(TAGS).of(np.array([0, 1]), np.array([1, 2]))
    assert (begins.tolist(), ends.tolist()) == ([0, 1], [1, 2])


def test_the_loss_is_the_mean_of_the_examples_means() -> None:
    targets = np.array([[0, 1, NO_WORD], [2, NO_WORD, NO_WORD], [NO_TAG, NO_WORD, NO_WORD]])
    logits = np.zeros((3, 3, 5), np.float32)
    logits[0, 0, 0] = 2.0
    evaluation = TASK.evaluation()
    evaluation.add(logits, targets)
    found, first = evaluation.result(), math.log(math.exp(2) + 4) - 2
    assert found.examples == 2 and found.loss == pytest.approx(((first + math.log(5)) / 2 + math.log(5)) / 2)
    assert TASK.known(targets).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="no labelled example"):
        TASK.evaluation().result()


def pieces() -> Tokenizer:
    """Return a tokenizer that cuts words into letters, and does not know '!'."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{letter: n for n, letter in enumerate("abcdef", start=2)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    return tokenizer


def test_a_word_s_first_piece_has_its_tag(tmp_path: Path) -> None:
    pieces().save(str(tmp_path / "t.json"))
    encoder = Encoder(tmp_path / "t.json", 5)
    examples = [Example("ab c", label="B-city O"), Example("d"), Example("abcdef ab", label="O B-day")]
    encoded = encoder.encode(examples, TASK.targets)
    assert encoded.labels.tolist() == [1, NO_WORD, 0, NO_TAG, 0, *[NO_WORD] * 4] and encoded.truncated == 1
    assert encoded.places is not None and encoded.places.tolist() == [0, -1, 1, 0, 0, -1, -1, -1, -1]
    assert encoded.targets_of(np.array([1, 0])).tolist() == [[NO_TAG, *[-1] * 4], [1, -1, 0, -1, -1]]
    assert encoded.without([0]).labels.tolist() == [NO_TAG, 0, *[NO_WORD] * 4] and len(encoded.without([0])) == 2
    with pytest.raises(DataError, match="unknown tag 'B-hour'"):
        encoder.encode([Example("a", label="B-hour")], TASK.targets)


def test_a_piece_belongs_to_the_word_of_its_last_letter() -> None:
    """Pieces of a byte-level BPE begin with the blank before their word; SentencePiece may give a blank alone."""
    places = Places([None, 0, 0, 0, 0, 1, None], [(0, 0), (0, 2), (2, 5), (5, 6), (6, 8), (0, 2), (0, 0)])
    targets, words = TASK.targets.of(Example("ab cd  ef", "gh", "O B-city O"), places)
    assert targets.tolist() == [-1, 0, 1, -1, 0, -1, -1] and words.tolist() == [-1, 0, 1, -1, 2, -1, -1]


def test_what_is_told(tmp_path: Path) -> None:
    pieces().save(str(tmp_path / "t.json"))
    texts = ["ab  c d", "abcdef e"]
    encoded = Encoder(tmp_path / "t.json", 5).encode([Example(text) for text in texts], TASK.reading)
    logits = np.full((2, 5, 5), -9.0, np.float32)
    for row, token, tag in ((0, 0, 1), (0, 2, 2), (0, 3, 0), (1, 0, 3)):
        logits[row, token, tag] = 0.0
    first, second = TASK.answers(logits, 1, encoded, texts)
    span = {"label": "city", "text": "ab  c", "start": 0, "end": 5, "probability": pytest.approx(0.999507, abs=1e-6)}
    assert first == {"spans": [span], "words": ["ab", "c", "d"], "tags": ["B-city", "I-city", "O"]}
    assert second["tags"] == ["B-day", "O"], "a word that was cut off is in no span"
    assert [TASK.answer_text(told).strip() for told in (first, TASK.no_answer(1))] == ["city=ab  c", "-"]


def test_the_tags_are_all_kinds_that_occur() -> None:
    assert Tag.of_labels(["O I-day", "B-city"], []).labels == TAGS
    with pytest.raises(DataError, match="every tag of the training data is O"):
        Tag.of_labels(["O O", "O"], [])
    with pytest.raises(ConfigError, match="no labels to reserve"):
        Tag.of_labels(["B-city"], ["reserved-0"])


def test_strata_are_the_rarest_kinds() -> None:
    targets = np.array([[0, -1], [1, 0], [2, 3], [4, -1], [1, 1]])
    assert TASK.strata(targets).tolist() == [0, 1, 2, 2, 1]
