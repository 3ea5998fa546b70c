from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from edge_far.errors import ConfigError, UsageError
from edge_far.far.nodes import find_ffn_blocks, node_l1
from edge_far.far.select import learner_count, select_learners, top_nodes

pytestmark = pytest.mark.host


@pytest.mark.parametrize(
    ("retention", "size", "count"),
    [
        (0.1, 3072, 307),
        (0.1, 1536, 154),
        (0.4, 3072, 1229),
        (0.29, 100, 29),  # 0.29 * 100 is 28.999999999999996 in floating point
        (0.35, 10, 4),
        (0.45, 10, 5),
        (0.0001, 3072, 1),
        (0, 3072, 0),
        (1, 3072, 3072),
    ],
)
def test_learner_count(retention, size, count):
    assert learner_count(retention, size) == count


@pytest.mark.parametrize("retention", [-0.1, 1.1, float("nan"), float("inf")])
def test_retention_outside_its_range(retention):
    with pytest.raises(ConfigError, match="retention"):
        learner_count(retention, 10)


def test_far_takes_exactly_the_largest(tiny_model):
    blocks = find_ffn_blocks(tiny_model("bert"))
    metrics = [np.random.default_rng(b).random(40) for b in range(2)]
    selection = select_learners("far", 0.1, blocks, metrics)
    for metric, learners in zip(metrics, selection.learners, strict=True):
        assert learners.dtype == np.int64
        assert learners.tolist() == sorted(sorted(range(40), key=lambda j, m=metric: -m[j])[:4])
    assert selection.method == "far"


def test_equal_values_go_to_the_lowest_index():
    assert top_nodes(np.array([1.0, 3.0, 2.0, 2.0, 2.0]), 3).tolist() == [1, 2, 3]


def test_magnitude_takes_the_largest_nodes(tiny_model):
    block = find_ffn_blocks(tiny_model("distilbert"))[1]
    chosen = select_learners("magnitude", 0.2, [block]).learners[0]
    norms = node_l1(block.ffns[0].first.weight, block.ffns[0].first.bias, block.ffns[0].second.weight)
    assert norms[chosen].min() > np.delete(norms, chosen).max()


def test_first_and_random(tiny_model):
    blocks = find_ffn_blocks(tiny_model("roberta"))
    assert select_learners("first", 0.1, blocks).learners[1].tolist() == [0, 1, 2, 3]
    one, same, other = (select_learners("random", 0.1, blocks, seed=s).learners for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], one[1])
    assert all(len(set(a.tolist())) == 4 and sorted(a) == a.tolist() for a in one)


@pytest.mark.parametrize("method", ["far", "random", "magnitude", "first"])
@pytest.mark.parametrize(("retention", "count"), [(0, 0), (1, 40)])
def test_nothing_and_everything(tiny_model, method, retention, count):
    blocks = find_ffn_blocks(tiny_model("bert"))
    selection = select_learners(method, retention, blocks, [np.ones(40), np.ones(40)])
    assert [learners.tolist() for learners in selection.learners] == [list(range(count))] * 2


def test_errors(tiny_model):
    blocks = find_ffn_blocks(tiny_model("bert"))
    with pytest.raises(ConfigError, match=r"'best'.*far, random, magnitude, first"):
        select_learners("best", 0.1, blocks)
    with pytest.raises(UsageError, match="priming"):
        select_learners("far", 0.1, blocks)
    with pytest.raises(UsageError, match=r"\[39, 40\]"):
        select_learners("far", 0.1, blocks, [np.ones(39), np.ones(40)])
    with pytest.raises(ConfigError, match="not finite"):
        select_learners("far", 0.1, blocks, [np.full(40, np.nan), np.ones(40)])
