"""Heads as nodes: found, measured, split and merged; the gradients are those of the unsplit model, masked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_far.errors import Unavailable, UsageError  # noqa: E402
from edge_far.far.heads import SplitAttention, attention_share, find_attention_blocks, head_l1  # noqa: E402
from edge_far.far.nodes import find_ffn_blocks  # noqa: E402
from edge_far.far.reconfigure import merge, reconfigure, trained_parameters  # noqa: E402
from edge_far.far.select import learner_count, select_learners  # noqa: E402
from tests.tiny_models import ARCHITECTURES, WITH_LATER_ONES, make_batch, make_tiny, torch_logits, torch_loss  # noqa: E402

pytestmark = pytest.mark.host

architectures = pytest.mark.parametrize("architecture", WITH_LATER_ONES)
HEADS, WIDTH, HIDDEN = 4, 8, 32


def split(model, nodes, heads, method="random"):
    selection = select_learners(method, nodes, find_ffn_blocks(model), seed=3)
    chosen = select_learners(method, heads, find_attention_blocks(model), seed=4)
    reconfigure(model, replace(selection, heads=chosen))
    return chosen


def rows_of(heads):
    return [head * WIDTH + number for head in heads for number in range(WIDTH)]


def linears(model):
    """Return name and axis of every weight and bias that is split by heads, and the names of projections' biases."""
    split_by_heads, kept = {}, []
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for block in find_attention_blocks(model):
        for linear in block.inputs:
            split_by_heads[names[id(linear.weight)]] = (block.index, 0)
            if linear.bias is not None:
                split_by_heads[names[id(linear.bias)]] = (block.index, 0)
        split_by_heads[names[id(block.output.weight)]] = (block.index, 1)
        if block.output.bias is not None:
            kept.append(names[id(block.output.bias)])
    return split_by_heads, kept


@pytest.mark.parametrize(
    ("architecture", "query", "output"),
    [
        ("bert", "bert.encoder.layer.1.attention.self.query", "bert.encoder.layer.1.attention.output.dense"),
        ("roberta", "roberta.encoder.layer.1.attention.self.query", "roberta.encoder.layer.1.attention.output.dense"),
        (
            "distilbert",
            "distilbert.transformer.layer.1.attention.q_lin",
            "distilbert.transformer.layer.1.attention.out_lin",
        ),
    ],
)
def test_finds_every_attention(architecture, query, output):
    model = make_tiny(architecture)
    blocks = find_attention_blocks(model)
    assert [(block.index, block.heads, block.units, block.width) for block in blocks] == [(0, 4, 4, 8), (1, 4, 4, 8)]
    assert blocks[1].inputs[0] is model.get_submodule(query) and blocks[1].output is model.get_submodule(output)
    with pytest.raises(Unavailable, match="Linear is not supported"):
        find_attention_blocks(torch.nn.Linear(2, 2))


def test_head_l1_is_the_sum_over_rows_biases_and_columns():
    block = find_attention_blocks(make_tiny("bert"))[0]
    measured = head_l1(block.values()[:-1], block.values()[-1], WIDTH)
    assert np.array_equal(measured, block.l1(block.values())) and measured.shape == (HEADS,)
    for head in range(HEADS):
        rows = rows_of([head])
        parts = [part[rows] for linear in block.inputs for part in (linear.weight, linear.bias)]
        expected = sum(float(part.detach().abs().sum()) for part in (*parts, block.output.weight[:, rows]))
        assert measured[head] == pytest.approx(expected, rel=1e-6)


def test_selections_of_heads():
    blocks = find_attention_blocks(make_tiny("bert"))
    assert select_learners("first", 0.5, blocks).learners[1].tolist() == [0, 1]
    assert len(select_learners("random", 0.75, blocks, seed=1).learners[0]) == 3
    largest = int(np.argmax(blocks[0].l1(blocks[0].values())))
    assert select_learners("magnitude", 0.25, blocks).learners[0].tolist() == [largest]
    metrics = [np.array([0.0, 3.0, 1.0, 2.0]), np.array([5.0, 0.0, 0.0, 9.0])]
    chosen = select_learners("far", 0.5, blocks, metrics)
    assert [heads.tolist() for heads in chosen.learners] == [[1, 3], [0, 3]]


@pytest.mark.parametrize(
    ("asked", "retention", "count"), [(None, 0.1, 1), (None, 0.0, 1), (None, 0.4, 5), (0.0, 0.1, 0)]
)
def test_the_share_of_heads_is_the_nodes_but_at_least_one(asked, retention, count):
    assert learner_count(attention_share(asked, retention, 12), 12) == count


@architectures
@pytest.mark.parametrize("heads", [0, 0.25, 0.75, 1])
def test_outputs_stay_and_merging_gives_back_every_bit(architecture, heads):
    model, batch = make_tiny(architecture), make_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules, logits = repr(model), torch_logits(model, batch)
    split(model, 0.4, heads)
    torch.testing.assert_close(torch_logits(model, batch), logits, rtol=0, atol=1e-5)
    merge(model)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert repr(model) == modules and all(parameter.requires_grad for parameter in model.parameters())


@architectures
@pytest.mark.parametrize(("nodes", "heads"), [(0, 0.25), (0.1, 0.25), (1, 0.25), (0.1, 0.75)])
def test_gradients_are_the_unsplit_models_rows_and_columns(architecture, nodes, heads):
    model, batch = make_tiny(architecture), make_batch()
    by_heads, kept = linears(model)
    torch_loss(model, batch).backward()
    whole = {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}
    chosen = split(model, nodes, heads)
    trained = trained_parameters(model)
    gradients = dict(zip(trained, torch.autograd.grad(torch_loss(model, batch), list(trained.values())), strict=True))
    layout = {name: name for name in by_heads}
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, SplitAttention):
            prefix = f"{path}.learner"
            for name in module.slots.inputs:
                for part in ("weight", "bias"):
                    if f"{prefix}.{name}.{part}" in gradients:
                        found[f"{path}.{name}.{part}"] = gradients[f"{prefix}.{name}.{part}"]
            output = path.removesuffix(module.slots.attention) + module.slots.output
            found[f"{output}.weight"] = gradients[f"{prefix}_out.weight"]
            if f"{prefix}_out.bias" in gradients:
                found[f"{output}.bias"] = gradients[f"{prefix}_out.bias"]
    assert set(found) == set(layout) | set(kept)
    scale = max(float(np.abs(array).max()) for array in whole.values())
    for name, gradient in found.items():
        expected = whole[name]
        if name in by_heads:
            block, axis = by_heads[name]
            expected = np.take(expected, rows_of(chosen.learners[block]), axis)
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5, atol=1e-6 * scale, err_msg=name)
    assert not [name for name in trained if ".frozen." in name or name.endswith("frozen_out.weight")]


@architectures
def test_only_the_chosen_heads_change(architecture):
    model, batch = make_tiny(architecture), make_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    by_heads, kept = linears(model)
    chosen = split(model, 0.1, 0.25)
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
    torch_loss(model, batch).backward()
    optimizer.step()
    logits = torch_logits(model, batch)
    merge(model)
    torch.testing.assert_close(torch_logits(model, batch), logits, rtol=0, atol=1e-5)
    after = model.state_dict()
    for name, (block, axis) in by_heads.items():
        was, now = (np.moveaxis(state[name].numpy(), axis, 0) for state in (before, after))
        learning = rows_of(chosen.learners[block])
        others = np.setdiff1d(np.arange(HIDDEN), learning)
        assert np.array_equal(was[others], now[others]), name
        assert (was[learning] != now[learning]).any(), name
    assert all(not torch.equal(before[name], after[name]) for name in kept)


def test_without_learning_heads_the_projections_bias_learns():
    model = make_tiny("bert")
    split(model, 0.1, 0)
    names = [name for name in trained_parameters(model) if ".attention.self." in name]
    assert names == [f"bert.encoder.layer.{block}.attention.self.frozen_out.bias" for block in (0, 1)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_attention_that_transformers_chose_runs(architecture):
    model, batch = make_tiny(architecture), make_batch()
    expected = torch_logits(model, batch)
    split(model, 0.1, 0.25)
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(torch_logits(model, batch), expected, rtol=0, atol=1e-5)


def test_errors():
    model = make_tiny("bert")
    nodes = select_learners("first", 0.1, find_ffn_blocks(model))
    heads = select_learners("first", 0.25, find_attention_blocks(model))
    outside = replace(heads, learners=(np.array([0, 4]), np.array([1])))
    with pytest.raises(UsageError, match="heads outside 0 to 3"):
        reconfigure(model, replace(nodes, heads=outside))
    reconfigure(model, replace(nodes, heads=heads))
    with pytest.raises(UsageError, match="attention is split already"):
        find_attention_blocks(model)
