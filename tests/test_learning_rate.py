"""The learning rate schedule at its corners."""

import pytest

from edge_far.learning_rate import WarmupLinear


def test_rises_then_falls() -> None:
    schedule = WarmupLinear(1.0, warmup_steps=4, total_steps=12)
    assert [schedule(step) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [schedule(step) for step in (8, 12, 13, 100)] == [0.5, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("warmup", "total"), [(0, 0), (0, 5), (5, 5), (7, 5), (1, 1)])
def test_degenerate_lengths(warmup: int, total: int) -> None:
    schedule = WarmupLinear(3e-4, warmup, total)
    rates = [schedule(step) for step in range(10)]
    assert all(0 <= rate <= 3e-4 for rate in rates)
    assert rates[9] == 0.0
