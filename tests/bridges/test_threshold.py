"""The threshold from which answers are taken, against a search through all of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from edge_far import Model, cli
from edge_far.bridges.threshold import Measured, choose_threshold
from edge_far.errors import ConfigError
from tests.application.releases import Service


def share_right(answers: list[Measured], threshold: float) -> tuple[int, float]:
    """Return how many answers a threshold takes, and the share of those that are right."""
    taken = [answer.right for answer in answers if answer.probability >= threshold]
    return len(taken), sum(taken) / len(taken) if taken else 0.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("target", [0.5, 0.8, 0.95])
def test_it_takes_as_many_as_it_can(seed: int, target: float) -> None:
    chance = random.Random(seed)
    answers = []
    for _ in range(60):
        probability = round(chance.random(), 1 + seed % 2)  # many are equal
        answers.append(Measured(probability, chance.random() < probability))
    every = [0.0, *sorted({answer.probability for answer in answers})]
    good = [threshold for threshold in every if share_right(answers, threshold)[1] >= target]
    if not good:
        with pytest.raises(ConfigError, match="no threshold reaches"):
            choose_threshold(answers, target)
        return
    most, accuracy = share_right(answers, min(good))
    found = choose_threshold(answers, target)
    assert share_right(answers, found.threshold) == (most, accuracy)
    assert (found.accepted, found.accuracy, found.examples) == (most / 60, accuracy, 60)
    assert (found.threshold == 0) == (most == 60)


def test_it_lies_between_two_answers() -> None:
    answers = [Measured(0.9, True), Measured(0.7, True), Measured(0.6, False)]
    assert choose_threshold(answers, 0.9).threshold == 0.65


@pytest.mark.parametrize(("answers", "wrong"), [([], "no example"), ([Measured(0.9, False)], "at best 0.0% of those")])
def test_what_cannot_be_is_told(answers: list[Measured], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        choose_threshold(answers, 0.5)


def test_the_command_tells_it(service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(service.link, threads=1)
    texts = [f"w{number} w{number + 1}" for number in range(30)]
    ranked = sorted((model.predict(text) for text in texts), key=lambda answer: answer.probability, reverse=True)
    assert ranked[19].probability > ranked[20].probability
    likely = {answer.probability for answer in ranked[:20]}
    lines = []
    for text in texts:  # the model is right in the twenty of which it is surest, and in no other
        answer = model.predict(text)
        wrong = "label-0" if answer.label != "label-0" else "label-1"
        lines.append(json.dumps({"text": text, "label": answer.label if answer.probability in likely else wrong}))
    data = tmp_path / "eval.jsonl"
    data.write_text("\n".join(lines))
    arguments = ["serve", "--choose-threshold", str(data), "--model", str(service.link), "--target-percent", "100"]
    assert cli.main([*arguments, "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert ranked[20].probability < found["threshold"] < ranked[19].probability
    assert (found["accepted"], found["accuracy"], found["examples"]) == (20 / 30, 1.0, 30)
    assert found["release"] == service.releases.current_id()
    assert cli.main(arguments) == 0
    assert "66.7% of 30 examples are taken, and 100.0% of those are right" in capsys.readouterr().out
    assert cli.main(["serve", "--wyoming", "--choose-threshold", str(data)]) == 64
    assert cli.main(["serve"]) == 64
