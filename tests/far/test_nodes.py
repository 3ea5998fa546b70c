from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import MobileBertConfig, MobileBertForSequenceClassification  # noqa: E402

from edge_far.errors import Unavailable, UsageError  # noqa: E402
from edge_far.far.nodes import architecture_of, embeddings_of, find_ffn_blocks, node_l1  # noqa: E402
from edge_far.far.reconfigure import merge, original_layout, reconfigure  # noqa: E402
from edge_far.far.select import select_learners  # noqa: E402

pytestmark = pytest.mark.host


@pytest.mark.parametrize(
    ("architecture", "path", "first"),
    [
        ("bert", "bert.encoder.layer.1", "intermediate.dense"),
        ("roberta", "roberta.encoder.layer.1", "intermediate.dense"),
        ("distilbert", "distilbert.transformer.layer.1", "ffn.lin1"),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_finds_every_block(tiny_model, architecture, path, first, bare):
    model = tiny_model(architecture)
    if bare:
        model, path = getattr(model, architecture), path.removeprefix(f"{architecture}.")
    assert architecture_of(model).name == architecture
    blocks = find_ffn_blocks(model)
    assert [block.index for block in blocks] == [0, 1]
    last = blocks[1]
    assert (last.path, last.width, last.units, last.activation) == (path, 16, 40, "gelu")
    (ffn,) = last.ffns
    assert ffn.first is model.get_submodule(f"{path}.{first}")
    assert ffn.second.weight.shape == (16, 40)
    assert next(iter(embeddings_of(model).values())).word_embeddings.weight.shape == (60, 16)


def test_other_architectures_are_named_with_the_supported_ones():
    with pytest.raises(Unavailable, match=r"the architecture Linear is not supported.*BERT, DistilBERT, RoBERTa"):
        find_ffn_blocks(torch.nn.Linear(2, 2))


def test_decoders_are_refused(tiny_model):
    with pytest.raises(Unavailable, match="decoder"):
        find_ffn_blocks(tiny_model("bert", is_decoder=True))


def test_a_reconfigured_model_is_refused(tiny_model):
    model = tiny_model("distilbert")
    reconfigure(model, select_learners("first", 0.1, find_ffn_blocks(model)))
    with pytest.raises(UsageError, match=r"layer\.0.*merged first"):
        find_ffn_blocks(model)


def test_node_l1_is_the_sum_over_row_bias_and_column(tiny_model):
    (ffn,) = find_ffn_blocks(tiny_model("bert"))[0].ffns
    first, bias, second = (
        value.detach().numpy().astype(np.float64) for value in (ffn.first.weight, ffn.first.bias, ffn.second.weight)
    )
    expected = []
    for node in range(40):
        values = [*first[node], bias[node], *second[:, node]]
        expected.append(sum(abs(value) for value in values))
    measured = node_l1(ffn.first.weight, ffn.first.bias, ffn.second.weight)
    np.testing.assert_allclose(measured, expected, rtol=1e-12)


def test_the_nodes_of_several_ffns_are_numbered_through():
    """MobileBERT's four, in the order they run; a block's best may lie in few of them, and all of it merges back."""
    config = MobileBertConfig(
        vocab_size=60, hidden_size=24, intra_bottleneck_size=16, embedding_size=8, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=10, max_position_embeddings=32, num_labels=3,
    )  # fmt: skip
    model = MobileBertForSequenceClassification(config).eval()
    before, printed = {name: value.clone() for name, value in model.state_dict().items()}, repr(model)
    block = find_ffn_blocks(model)[1]
    path = "mobilebert.encoder.layer.1"
    assert [ffn.path for ffn in block.ffns] == [f"{path}.ffn.0", f"{path}.ffn.1", f"{path}.ffn.2", path]
    assert (block.units, block.width, block.activation) == (40, 16, "relu")
    metric = block.l1(block.values())
    for number, ffn in enumerate(block.ffns):
        own = node_l1(ffn.first.weight, ffn.first.bias, ffn.second.weight)
        assert np.array_equal(metric[10 * number : 10 * number + 10], own)
    shares = [nodes.tolist() for _, nodes in block.by_ffn(np.array([0, 9, 10, 31, 39]))]
    assert shares == [[0, 9], [0], [], [1, 9]]
    metrics = [np.arange(40.0), np.where(np.arange(40) % 20 == 13, 1.0, 0.0)]
    reconfigure(model, select_learners("far", 0.25, find_ffn_blocks(model), metrics))
    groups = original_layout(model)["groups"]["nodes"]
    assert groups["counts"] == [10] * 8
    assert groups["learners"] == [[], [], [], list(range(10)), [*range(8)], [3], [], [3]]
    merge(model)
    assert repr(model) == printed
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
