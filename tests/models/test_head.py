"""A fine-tuned head means the same after the export: its rows follow their names, or are new and said to be."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.conftest import SaveModel

pytestmark = pytest.mark.host

NAMES = ["positive", "negative", "neutral", "mixed", "none"]
IDS = [[2, 7, 9, 11, 3], [2, 20, 21, 22, 3]]


def logits_of(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("change", [str, str.upper], ids=["as they are", "in capitals"])
def test_each_label_keeps_its_logit(architecture: str, change: Any, model: SaveModel) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from edge_far.models.source import load_source

    directory = model(architecture, id2label=dict(enumerate(NAMES)))
    labels = sorted(change(name) for name in NAMES)
    theirs = AutoModelForSequenceClassification.from_pretrained(directory, attn_implementation="eager").eval()
    source = load_source(str(directory), labels, 0)
    assert source.head.kind == "reordered"
    expected = logits_of(theirs)[:, [NAMES.index(label.lower()) for label in labels]]
    assert torch.equal(logits_of(source.model.eval()), expected)


@pytest.mark.parametrize(
    ("saved", "labels", "kind", "says"),
    [
        (["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"], "kept", "are the data's"),
        ([f"LABEL_{n}" for n in range(5)], ["0", "1", "2", "3", "4"], "kept", "are the data's"),
        (["E", "d", "c", "b", "a"], ["a", "b", "c", "d", "e"], "reordered", "in another order"),
        (["On", "on", "c", "d", "e"], ["On", "c", "d", "e", "on"], "reordered", "in another order"),
        (["On", "on", "c", "d", "e"], ["ON", "c", "d", "e", "on"], "new", "are not the data's"),
        ([f"LABEL_{n}" for n in range(5)], ["a", "b", "c", "d", "e"], "new", "no names in config.json"),
        (["v", "w", "x", "y", "z"], ["a", "b", "c", "d", "e"], "new", "'v', 'w', 'x', ..."),
        (["a", "b", "c", "d", "e"], ["a", "b", "c"], "new", "it has 5 rows, the data 3 labels"),
        (["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e", "reserved-0"], "new", "it has 5 rows, the data 6 labels"),
        (["a", "a", "c", "d", "e"], ["a", "b", "c", "d", "e"], "new", "does not name each"),
    ],
)
def test_names_decide(saved: list[str], labels: list[str], kind: str, says: str, model: SaveModel) -> None:
    from edge_far.models.source import load_source

    source = load_source(str(model(id2label=dict(enumerate(saved)))), labels, 0)
    assert source.head.kind == kind and says in source.head.why
    assert source.model.classifier.weight.shape == (len(labels), 32)
    assert [f"a new head: {source.head.why}"] * (kind == "new") == list(source.warnings)


def test_gaps_among_the_names_and_heads_of_other_tasks(model: SaveModel) -> None:
    from edge_far.models.source import load_source

    gaps = {"0": "a", "1": "b", "2": "c", "3": "d", "7": "e"}
    assert load_source(str(model(id2label=gaps)), ["a", "b", "c", "d", "e"], 0).head.kind == "new"
    named = dict(enumerate("abcde"))
    tagger = model(id2label=named, architectures=["BertForTokenClassification"])
    head = load_source(str(tagger), ["a", "b", "c", "d", "e"], 0).head
    assert head.kind == "new" and "BertForTokenClassification" in head.why


def test_a_head_that_is_replaced_depends_on_the_seed_alone(model: SaveModel) -> None:
    import torch

    from edge_far.models.source import load_source

    directory = model(id2label=dict(enumerate("vwxyz")))
    heads = [load_source(str(directory), list("abcde"), seed).model.classifier for seed in (1, 1, 2)]
    assert torch.equal(heads[0].weight, heads[1].weight) and not torch.equal(heads[0].weight, heads[2].weight)
    assert not heads[0].bias.any() and 0.01 < heads[0].weight.std().item() < 0.03  # as transformers: 0.02


def test_a_model_without_a_head_gets_the_one_transformers_makes(model: SaveModel) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from edge_far.models.source import load_source
    from tests.models.test_weight_files import change

    directory = model()
    change(directory, lambda w: {name: value for name, value in w.items() if not name.startswith("classifier")})
    torch.manual_seed(7)
    theirs = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=3, attn_implementation="eager")
    source = load_source(str(directory), ["a", "b", "c"], 7)
    assert (source.head.kind, source.warnings) == ("new", ())
    assert torch.equal(source.model.classifier.weight, theirs.classifier.weight)


@pytest.mark.parametrize(
    ("labels", "task"), [((), "regression"), (("a", "b", "c", "d", "e"), "multi_label_classification")]
)
def test_a_head_of_another_task_is_made_new(model: SaveModel, labels: tuple[str, ...], task: str) -> None:
    from edge_far.models.source import load_source

    directory = model(id2label=dict(enumerate("abcde")), problem_type="single_label_classification")
    outputs = len(labels) or 1
    source = load_source(str(directory), labels, 0, outputs=outputs, problem_type=task)
    assert source.head.kind == "new" and source.head.lost and source.model.config.num_labels == outputs
    assert source.model.classifier.weight.shape[0] == outputs
    if labels:
        own = load_source(str(directory), labels, 0, problem_type="single_label_classification")
        assert own.head.kind == "kept"


@pytest.mark.parametrize(("architecture", "last"), [("bert", "qa_outputs"), ("modernbert", "classifier")])
def test_a_head_for_answers(architecture: str, last: str, model: SaveModel) -> None:
    """Kept with all its layers; a classifier's of the same name and size finds none."""
    import torch

    from edge_far.models.source import load_source
    from tests.tiny_models import make_batch, make_original

    directory = model(architecture)
    make_original(architecture, labels=2).save_pretrained(directory)
    fresh = load_source(str(directory), [], 0, outputs=2, head_class="QuestionAnswering")
    assert fresh.head.kind == "new" and fresh.head.lost == (last == "classifier")
    theirs = make_original(architecture, labels=2, head_class="QuestionAnswering")
    theirs.save_pretrained(directory)
    ours = load_source(str(directory), [], 0, outputs=2, head_class="QuestionAnswering")
    assert ours.head.kind == "kept" and ours.model.get_submodule(last).out_features == 2
    batch = make_batch(rows=1, length=16)
    inputs = {name: torch.tensor(array) for name, array in batch.model_inputs(token_types=False).items()}
    with torch.no_grad():
        found, expected = ours.model.eval()(**inputs).logits, theirs(**inputs)
    torch.testing.assert_close(found[..., 0], expected.start_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[..., 1], expected.end_logits, rtol=0, atol=1e-5)
