"""The learning rate schedule against transformers.get_linear_schedule_with_warmup."""

import pytest

from edge_far.learning_rate import WarmupLinear

pytestmark = pytest.mark.host


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 20), (3, 20), (20, 20), (25, 20)])
def test_same_rates(warmup: int, total: int) -> None:
    import torch
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    oracle = get_linear_schedule_with_warmup(optimizer, warmup, total)
    schedule = WarmupLinear(3e-4, warmup, total)
    for step in range(total + 3):
        assert schedule(step) == optimizer.param_groups[0]["lr"]
        optimizer.step()
        oracle.step()
