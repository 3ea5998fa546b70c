from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_far.errors import ConfigError, UsageError  # noqa: E402
from edge_far.far.method import select_above_cut  # noqa: E402
from edge_far.far.nodes import find_ffn_blocks  # noqa: E402
from edge_far.far.reconfigure import merge, original_layout, reconfigure, trained_parameters  # noqa: E402
from edge_far.far.select import Selection, select_learners  # noqa: E402

pytestmark = pytest.mark.host

architectures = pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
LINEARS = {
    "bert": ("bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.0.output.dense"),
    "roberta": ("roberta.encoder.layer.0.intermediate.dense", "roberta.encoder.layer.0.output.dense"),
    "distilbert": ("distilbert.transformer.layer.0.ffn.lin1", "distilbert.transformer.layer.0.ffn.lin2"),
}

retentions = pytest.mark.parametrize("retention", [0, 0.1, 0.4, 1])


def split(model, retention, method="random"):
    selection = select_learners(method, retention, find_ffn_blocks(model), seed=3)
    reconfigure(model, selection)
    return selection


def logits(model, batch):
    with torch.no_grad():
        return model(
            input_ids=torch.from_numpy(batch["input_ids"]),
            attention_mask=torch.from_numpy(batch["attention_mask"]),
        ).logits


def train(model, batch, steps=3):
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
    labels = torch.from_numpy(batch["labels"])
    tensors = {key: torch.from_numpy(batch[key]) for key in ("input_ids", "attention_mask")}
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**tensors).logits, labels).backward()
        optimizer.step()


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@architectures
@retentions
def test_the_outputs_stay_the_same(tiny_model, make_batch, architecture, retention):
    model, batch = tiny_model(architecture), make_batch()
    before = logits(model, batch)
    assert before.std() > 0.05
    split(model, retention)
    torch.testing.assert_close(logits(model, batch), before, rtol=0, atol=1e-5)


@architectures
@retentions
def test_merging_at_once_gives_back_every_bit(tiny_model, architecture, retention):
    model = tiny_model(architecture)
    before, modules = values(model), repr(model)
    split(model, retention)
    merge(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert repr(model) == modules


@architectures
@retentions
def test_merging_after_training(tiny_model, make_batch, architecture, retention):
    model, batch = tiny_model(architecture), make_batch()
    before = values(model)
    first, second = LINEARS[architecture]
    selection = split(model, retention)
    train(model, batch)
    trained = logits(model, batch)
    merge(model)
    torch.testing.assert_close(logits(model, batch), trained, rtol=0, atol=1e-5)
    after = model.state_dict()
    learners = selection.learners[0]
    others = np.setdiff1d(np.arange(40), learners)
    for name, axis in ((f"{first}.weight", 0), (f"{first}.bias", 0), (f"{second}.weight", 1)):
        was, now = (np.moveaxis(state[name].numpy(), axis, 0) for state in (before, after))
        assert np.array_equal(was[others], now[others]), name
        if len(learners):
            assert (was[learners] != now[learners]).reshape(len(learners), -1).any(axis=1).all(), name
    assert not torch.equal(before[f"{second}.bias"], after[f"{second}.bias"])


@pytest.mark.parametrize(("embeddings", "count"), [("train", 41_456_180), ("frozen", 17_620_532)])
def test_the_papers_parameter_counts(embeddings, count):
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    with torch.device("meta"):
        model = DistilBertForSequenceClassification(DistilBertConfig(num_labels=2))
    split(model, 0.1, "first")
    assert sum(p.numel() for p in trained_parameters(model, embeddings).values()) == count


@architectures
def test_what_is_trained(tiny_model, architecture):
    model = tiny_model(architecture)
    everything = {name: parameter.numel() for name, parameter in model.named_parameters()}
    embeddings = sum(size for name, size in everything.items() if ".embeddings." in name)
    split(model, 1)
    assert sum(p.numel() for p in trained_parameters(model, "train").values()) == sum(everything.values())
    frozen = trained_parameters(model)
    assert sum(p.numel() for p in frozen.values()) == sum(everything.values()) - embeddings
    merge(model)
    split(model, 0)
    bare = trained_parameters(model)
    ffns = 2 * (40 * 16 + 40 + 16 * 40)
    assert sum(p.numel() for p in bare.values()) == sum(everything.values()) - embeddings - ffns
    flags = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert flags == set(bare)
    assert sum(name.endswith("frozen_out.bias") for name in bare) == 2
    with pytest.raises(ConfigError, match="frozen, train"):
        trained_parameters(model, "no")


def compose(layout, arrays):
    """Merge from the layout and NumPy arrays alone, as a device does."""
    merged = {}
    for name, how in layout["parameters"].items():
        if isinstance(how, str):
            merged[name] = arrays[how]
            continue
        group = layout["groups"][how["group"]]
        learners = group["learners"][how["block"]]
        others = sorted(set(range(group["counts"][how["block"]])) - set(learners))
        learners, others = (
            [u * group["width"] + e for u in units for e in range(group["width"])] for units in (learners, others)
        )
        parts = [(learners, how["learner"]), (others, how["frozen"])]
        nodes = {
            node: values
            for indices, part in parts
            if part is not None
            for node, values in zip(indices, np.moveaxis(arrays[part], how["axis"], 0), strict=True)
        }
        merged[name] = np.stack([nodes[node] for node in sorted(nodes)], axis=how["axis"])
    return merged


@architectures
@pytest.mark.parametrize(("retention", "heads"), [(0, None), (0.1, None), (1, None), (0.4, 0.5), (0.1, 0), (0, 1)])
def test_the_layout_says_how_to_merge_without_torch(tiny_model, make_batch, architecture, retention, heads):
    model = tiny_model(architecture)
    reconfigure(model, select_above_cut(model, "random", retention, heads, cut=0, seed=3))
    train(model, make_batch(), steps=1)
    layout = json.loads(json.dumps(original_layout(model)))
    arrays = {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    merged = compose(layout, arrays)
    merge(model)
    expected = model.state_dict()
    assert list(merged) == list(expected)
    for name, value in expected.items():
        assert np.array_equal(merged[name], value.numpy()), name
    used = [how if isinstance(how, str) else [how["learner"], how["frozen"]] for how in layout["parameters"].values()]
    flat = [name for entry in used for name in ([entry] if isinstance(entry, str) else entry) if name]
    assert sorted(flat) == sorted(arrays)


def test_errors(tiny_model):
    model = tiny_model("bert")
    with pytest.raises(UsageError, match="not reconfigured"):
        merge(model)
    with pytest.raises(UsageError, match="not reconfigured"):
        original_layout(model)
    one = select_learners("first", 0.1, find_ffn_blocks(model)[:1])
    with pytest.raises(UsageError, match="1 blocks, the model 2"):
        reconfigure(model, one)
    outside = Selection("far", 0.1, (np.array([3, 40]), np.array([1])), (None, None))
    with pytest.raises(UsageError, match="0 to 39"):
        reconfigure(model, outside)
