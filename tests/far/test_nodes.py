from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_far.errors import Unavailable, UsageError  # noqa: E402
from edge_far.far.nodes import architecture_of, embeddings_of, find_ffn_blocks, node_l1  # noqa: E402
from edge_far.far.reconfigure import reconfigure  # noqa: E402
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
    assert (last.path, last.hidden_size, last.ffn_size, last.activation) == (path, 16, 40, "gelu")
    assert last.first is model.get_submodule(f"{path}.{first}")
    assert last.second.weight.shape == (16, 40)
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
    block = find_ffn_blocks(tiny_model("bert"))[0]
    first, bias, second = (
        value.detach().numpy().astype(np.float64)
        for value in (block.first.weight, block.first.bias, block.second.weight)
    )
    expected = []
    for node in range(40):
        values = [*first[node], bias[node], *second[:, node]]
        expected.append(sum(abs(value) for value in values))
    measured = node_l1(block.first.weight, block.first.bias, block.second.weight)
    np.testing.assert_allclose(measured, expected, rtol=1e-12)
