"""FLOPs of a bundle's graphs: by hand, over micro-batches, and against PyTorch's own counter."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest

from edge_far.bench.work.counts import Work, count_fill, count_step
from edge_far.bench.work.task import random_batch
from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import OperatorCost
from edge_far.device.planning.work import graph_flops

TOKENS = ((1.0, 1.0, 6.0),)


@pytest.mark.parametrize(
    ("kernel", "counted"),
    [
        ("Gemm[transA=0,transB=0](Tn,nn)", True),
        ("FusedMatMul[transA=1](bnss,bnsn)", True),
        ("QLinearMatMul(uint8:Tn,,int8:nn)", True),
        ("MatMulInteger(uint8:Tn,int8:nn)", True),
        ("Attention[q_num_heads=4](bsn,bsn,bsn)", True),
        ("MultiHeadAttention[num_heads=4](bsn,bsn,bsn)", True),
        ("Add(Tn,Tn)", False),
        ("Gelu(Tn)", False),
        ("node", False),
    ],
)
def test_products_and_attentions_are_counted_and_nothing_else(kernel: str, counted: bool) -> None:
    cost = OperatorCost(kernel, TOKENS, TOKENS, 2)
    assert graph_flops([cost, OperatorCost("node", (), (), 9)], 3, 8) == (2 * 6 * 3 * 8 if counted else 0)


def test_a_step_is_its_micro_batches(tiny_bundle: Callable[[str], Bundle]) -> None:
    bundle = tiny_bundle("bert-r10-2")
    costs = bundle.manifest.portable.steps[0].costs
    counts = count_step(bundle, "step", "adamw", Work(batch=7, micro_batch=3, length=16))
    assert counts.flops == 2 * graph_flops(costs, 3, 16) + graph_flops(costs, 1, 16) > 0
    assert (counts.bytes_moved is None) == (importlib.util.find_spec("onnx_ir") is None)


def test_a_fill_is_the_prefix_once_a_text(tiny_bundle: Callable[[str], Bundle]) -> None:
    bundle = tiny_bundle("bert-top1-5")
    prefix = bundle.manifest.portable.prefix
    assert prefix is not None
    fill, one = (count_fill(bundle, Work(batch, batch, 16)) for batch in (7, 1))
    assert fill.flops == 7 * graph_flops(prefix.graph.costs, 1, 16) > 0
    assert one.bytes_moved is None or (one.bytes_moved > 0 and fill.bytes_moved == 7 * one.bytes_moved)


def test_the_more_is_frozen_the_fewer_operations(tiny_bundle: Callable[[str], Bundle]) -> None:
    work = Work(4, 4, 16)
    head, top, far = (
        count_step(tiny_bundle(name), "step", "adamw", work).flops or 0.0
        for name in ("bert-head-5", "bert-top1-5", "bert-r10-5-heads")
    )
    assert 0 < head < top / 2 < far / 2


@pytest.mark.host
def test_pytorch_counts_the_same_products(tiny_bundle: Callable[[str], Bundle]) -> None:
    pytest.importorskip("torch")
    from edge_far.bench.work.torch_steps import count_flops
    from edge_far.far.nodes import find_ffn_blocks
    from edge_far.far.reconfigure import reconfigure, trained_parameters
    from edge_far.far.select import select_learners
    from tests.tiny_models import make_tiny

    bundle = tiny_bundle("distilbert-r40-2-all-tokens")  # PyTorch computes all tokens of the last block
    model = make_tiny("distilbert", labels=2)
    reconfigure(model, select_learners("first", 0.4, find_ffn_blocks(model)))
    trained_parameters(model, "frozen")
    costs = bundle.manifest.portable.steps[0].costs
    sums = [cost for cost in costs if cost.kernel.endswith("(Tn,n1)")]  # of rows, for a LayerNorm: PyTorch adds them up
    assert sum(cost.count for cost in sums) == 8
    batch = random_batch(np.random.default_rng(0), (3, 24), 100, 2)
    assert count_flops(model, batch) == graph_flops([cost for cost in costs if cost not in sums], 1, 24)
