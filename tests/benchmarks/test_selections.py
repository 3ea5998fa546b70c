"""benchmarks/quality/selections.py: scores against sums made by hand, the choice across blocks, the same work."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.host

torch = pytest.importorskip("torch", reason="needs torch")
selections = pytest.importorskip("benchmarks.quality.selections", exc_type=ImportError)


def test_across_blocks_takes_the_best_of_all() -> None:
    taken = selections.across_blocks([np.array([5.0, 1.0, 4.0]), np.array([0.0, 6.0]), np.array([0.5, 0.2])], 3)
    assert [list(each) for each in taken] == [[0, 2], [1], []]


def test_scores_are_those_of_the_gradients_of_each_batch() -> None:
    from edge_far.far.nodes import find_ffn_blocks
    from tests.tiny_models import make_tiny

    model = make_tiny("bert")
    generator = np.random.default_rng(0)
    batches = [
        {
            "input_ids": generator.integers(5, 50, (4, 6)),
            "attention_mask": np.ones((4, 6), np.int64),
            "labels": generator.integers(0, 2, 4),
        }
        for _ in range(3)
    ]
    gradient = selections.node_sums(model, batches, "softmax", lambda weight, mean, _: weight * mean)
    fisher = selections.node_sums(model, batches, "softmax", lambda _, __, squares: squares)

    (ffn,), node = find_ffn_blocks(model)[1].ffns, 3
    parts = (ffn.first.weight, ffn.first.bias, ffn.second.weight)
    model.eval()
    grads = []
    for batch in batches:
        model.zero_grad()
        found = model(**{name: torch.from_numpy(value) for name, value in batch.items() if name != "labels"}).logits
        torch.nn.functional.cross_entropy(found, torch.from_numpy(batch["labels"])).backward()
        grads.append([part.grad.detach().clone() for part in parts])

    def of_node(values: list[torch.Tensor]) -> float:
        first, bias, second = values
        return float(first[node].abs().sum() + bias[node].abs() + second[:, node].abs().sum())

    mean = [sum(each) / 3 for each in zip(*grads, strict=True)]
    squares = [sum(one**2 for one in each) / 3 for each in zip(*grads, strict=True)]
    expected = of_node([w.detach() * g for w, g in zip(parts, mean, strict=True)])
    # Float32 sums in another order.
    assert gradient[1][node] == pytest.approx(expected, rel=1e-4)
    assert fisher[1][node] == pytest.approx(of_node(squares), rel=1e-4)
