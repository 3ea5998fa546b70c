"""Rematerialisation: which nodes run again, what stays, what is refused; gradients bit for bit, and a lower peak."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.bundles.bundle import Bundle
from edge_far.compile.gradient.losses import add_loss
from edge_far.compile.gradient.reverse_mode import add_gradients
from edge_far.compile.graph.builder import Builder
from edge_far.compile.memory.liveness import activation_peaks
from edge_far.compile.memory.rematerialise import rematerialise_blocks
from edge_far.device.planning.parts import value_at
from tests.tiny_graphs import make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
WIDTH, HIDDEN, BLOCKS, CLASSES = 64, 384, 4, 2  # logits small beside a block's input
LEARNERS = [f"w{number}" for number in range(BLOCKS)]
UP, DOWN, HEAD = (random_array(8 + n, *shape) / 8 for n, shape in enumerate(((64, 384), (384, 64), (64, 2))))


def make_step(*, skip: bool = False, mask: bool = False) -> ir.Model:
    """Blocks of x + down(tanh(up(x w))); with `skip` the last reads the first one's input, with `mask` all read one."""

    def build(b: Builder, x: ir.Value, attention_mask: ir.Value, *weights: ir.Value) -> ir.Value:
        x = b.mul(x, b.scalar(2.0))
        first, large_mask = x, b.mul(attention_mask, b.scalar(0.1)) if mask else attention_mask
        for number, weight in enumerate(weights):
            wide = b.gemm(b.gemm(x, weight), b.constant(UP, "up"))
            hidden = b.unary("Tanh", b.add(wide, large_mask) if mask else wide)
            x = b.add(x, b.gemm(hidden, b.constant(DOWN, "down")))
            first = x if number == 0 else first
        return b.gemm(b.add(x, first) if skip else x, b.constant(HEAD, "head"))

    weights = dict.fromkeys(LEARNERS, (WIDTH, WIDTH))
    model = make_graph({"x": (TOKENS, WIDTH), "attention_mask": (TOKENS, HIDDEN), **weights}, build)
    (logits,) = model.graph.outputs
    add_gradients(model, logits, add_loss(model, "softmax"), LEARNERS)
    return model


def run_step(model: ir.Model) -> list[np.ndarray]:
    named = {name: random_array(number, WIDTH, WIDTH) / 8 for number, name in enumerate(LEARNERS)}
    named |= {f"acc.{name}": random_array(7, WIDTH, WIDTH) for name in LEARNERS}
    named |= {"labels": np.arange(12) % CLASSES, "loss_scale": np.array(0.5, np.float32)}
    return run_graph(model, x=random_array(1, 12, WIDTH), attention_mask=random_array(2, 12, HIDDEN), **named)


def peak(model: ir.Model) -> float:
    return max(size.at(16, 128) for size in activation_peaks(model.graph))


def again(model: ir.Model) -> list[str]:
    """Return the operators that were added."""
    return [node.op_type for node in model.graph if str(node.name).startswith("again.")]


@pytest.mark.parametrize("mask", [False, True])
def test_blocks_before_the_last_run_again_and_the_bits_stay(mask: bool) -> None:
    model = make_step(mask=mask)
    plain = make_step(mask=mask)
    before = operators(model)
    note = rematerialise_blocks(model)
    # The backward pass of tanh reads its output; the product with `down` and the sum make the kept next input.
    block = ["Gemm", "Gemm", *(["Add"] if mask else []), "Tanh"]
    assert again(model) == block * (BLOCKS - 1)
    added = len(block) * (BLOCKS - 1)
    # The part before the first block is a segment too, of which nothing is read.
    assert note.changes == {"segments recomputed": BLOCKS, "nodes added": added} and not note.refusals
    assert sorted(operators(model)) == sorted(before + block * (BLOCKS - 1)), "nothing else changed"
    for found, expected in zip(run_step(model), run_step(plain), strict=True):
        np.testing.assert_array_equal(found, expected)
    # Three hidden activations fewer are kept, and the backward pass of a block has two of them more at its own peak.
    assert peak(plain) - peak(model) >= 4 * 16 * 128 * HIDDEN


def test_each_block_runs_again_only_when_its_gradient_is_due() -> None:
    model = make_step()
    rematerialise_blocks(model)
    order = [str(node.name) for node in model.graph]
    positions = [index for index, name in enumerate(order) if name.startswith("again.t.Tanh")]
    weights = [index for index, node in enumerate(model.graph) if str(node.outputs[0].name).startswith("grad.w")]
    # grad.w3 first, then one block again and its gradient, from the last to the first.
    merged = sorted([*positions, *weights])
    assert [index in positions for index in merged] == [False, True, False, True, False, True, False]


def test_what_reaches_over_a_block_forbids_the_cut() -> None:
    """With x1 read by the last sum, two values cross every place behind it: only the first block runs again."""
    model, plain = make_step(skip=True), make_step(skip=True)
    rematerialise_blocks(model)
    assert again(model) == ["Gemm", "Gemm", "Tanh"]
    for found, expected in zip(run_step(model), run_step(plain), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_graph_of_one_row_an_example_is_refused_and_left_alone() -> None:
    def build(b: Builder, x: ir.Value, w: ir.Value, v: ir.Value) -> ir.Value:
        return b.gemm(b.unary("Tanh", b.gemm(b.unary("Tanh", b.gemm(x, w)), v)), v)

    model = make_graph({"x": ("batch", WIDTH), "w": (WIDTH, WIDTH), "v": (WIDTH, WIDTH)}, build)
    (logits,) = model.graph.outputs
    add_gradients(model, logits, add_loss(model, "softmax"), ["w", "v"])
    before = operators(model)
    note = rematerialise_blocks(model)
    assert note.refusals == ["the forward pass has no two places that one value alone crosses"]
    assert operators(model) == before and not note.changes


def test_bundles_share_the_constants_and_predict_a_lower_peak(tiny_bundle: Callable[[str], Bundle]) -> None:
    for name in ("distilbert-r40-2-all-tokens", "roberta-r10-5-dropout"):
        bundle = tiny_bundle(name)
        steps = bundle.manifest.portable.steps
        plain, leaner = steps[0], steps[-1]
        assert (plain.name, leaner.name) == ("step", "step-remat")
        peaks = [max(value_at(size, 16, 128) for size in step.peaks) for step in (plain, leaner)]
        assert peaks[1] < peaks[0]
        graphs = [ir.load(bundle.path(f"portable/{step.name}.onnx")).graph for step in (plain, leaner)]
        external = [
            {n: (v.const_value.offset, v.const_value.length) for n, v in graph.initializers.items()
             if isinstance(v.const_value, ir.ExternalTensor)}
            for graph in graphs
        ]  # fmt: skip
        assert external[0] == external[1] and external[0]
        assert [value.name for value in graphs[0].inputs] == [value.name for value in graphs[1].inputs]
        assert [value.name for value in graphs[0].outputs] == [value.name for value in graphs[1].outputs]


@pytest.mark.parametrize("name", ["bert-r10-2", "distilbert-r40-2-all-tokens", "roberta-r10-2"])
def test_no_attention_keeps_weights_that_nothing_reads(name: str, tiny_bundle: Callable[[str], Bundle]) -> None:
    """ONNX Runtime frees a value after its last reader: one without a reader stays to the end."""
    bundle = tiny_bundle(name)
    for step in bundle.manifest.portable.steps:
        graph = ir.load(bundle.path(f"portable/{step.name}.onnx")).graph
        attentions = [node for node in graph if node.op_type == "Attention"]
        assert attentions
        assert all(value.uses() for node in attentions for value in node.outputs if value.name)
