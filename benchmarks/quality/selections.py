"""Other ways to choose learners than by the change of weights, after the same priming and at the same work.

FAR's own choice also leaves the model where its priming went. To compare the choice alone, each method here primes as
FAR does, keeps the primed weights, and takes as many nodes; only the score by which nodes are taken differs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import nn

from edge_far.choice.trials import Prepare
from edge_far.console import Console
from edge_far.far.above_cut import logits_of, mean_loss
from edge_far.far.nodes import Units, find_ffn_blocks
from edge_far.far.prime import Batch, PrimingResult, PrimingSettings, prime
from edge_far.far.reconfigure import reconfigure, trained_parameters
from edge_far.far.select import Selection, learner_count, top_nodes

__all__ = ["across_blocks", "by_change", "by_fisher", "by_gradient", "by_lot", "node_sums", "primed"]

Score = Callable[[nn.Module, Sequence[Batch], PrimingSettings, PrimingResult], list[np.ndarray]]


def primed(score: Score, *, across: bool = False) -> Prepare:
    """Return what primes and lets the nodes with the best scores learn: of each block as many, or `across` all blocks.

    Across, a block may get none; the nodes of all blocks together are as many.
    """

    def prepare(model: nn.Module, batches: Iterable[Batch], settings: PrimingSettings) -> dict[str, nn.Parameter]:
        drawn = list(batches)
        result = prime(model, drawn, settings, Console(quiet=True), halves=False)
        scores = score(model, drawn, settings, result)
        counts = [learner_count(settings.retention, len(each)) for each in scores]
        learners = across_blocks(scores, sum(counts)) if across else list(map(top_nodes, scores, counts))
        reconfigure(model, Selection("far", settings.retention, tuple(learners), tuple(scores)))
        return trained_parameters(model, "frozen")

    return prepare


def across_blocks(scores: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Return of each block the nodes that are among the `count` best of all blocks, sorted, int64."""
    chosen = top_nodes(np.concatenate(scores), count)
    ends = np.cumsum([0, *map(len, scores)])
    return [chosen[(chosen >= a) & (chosen < b)] - a for a, b in itertools.pairwise(ends)]


def by_change(_: nn.Module, __: Sequence[Batch], ___: PrimingSettings, result: PrimingResult) -> list[np.ndarray]:
    """Score by the L1 norm of the weights' change in priming, as FAR does (arXiv 2205.01541)."""
    return list(result.metrics)


def by_lot(_: nn.Module, __: Sequence[Batch], settings: PrimingSettings, result: PrimingResult) -> list[np.ndarray]:
    """Score at random, by the seed."""
    generator = np.random.default_rng(settings.seed)
    return [generator.random(len(metric)) for metric in result.metrics]


def by_gradient(
    model: nn.Module, batches: Sequence[Batch], settings: PrimingSettings, _: PrimingResult
) -> list[np.ndarray]:
    """Score by |w g|, summed over a node's weights; g is the mean gradient on the priming batches (SNIP's score)."""
    return node_sums(model, batches, settings.loss, lambda weight, mean, _: weight * mean)


def by_fisher(
    model: nn.Module, batches: Sequence[Batch], settings: PrimingSettings, _: PrimingResult
) -> list[np.ndarray]:
    """Score by the squared gradients of the priming batches, summed over a node's weights (empirical Fisher)."""
    return node_sums(model, batches, settings.loss, lambda _, __, squares: squares)


def node_sums(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: str,
    combine: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> list[np.ndarray]:
    """Return of each block, float64 [ffn], the L1 norm by node of combine(weight, mean gradient, mean square).

    Gradients are those of the batches' mean losses, without dropout, at the model's present weights.
    """
    blocks: Sequence[Units] = find_ffn_blocks(model)
    values = [value for block in blocks for value in block.values()]
    means, squares = [torch.zeros_like(v) for v in values], [torch.zeros_like(v) for v in values]
    flags, training = [value.requires_grad for value in values], model.training
    model.eval()
    for value in values:
        value.requires_grad_(True)
    for batch in batches:
        found = torch.autograd.grad(mean_loss(loss, logits_of(model, batch), batch["labels"]), values)
        for mean, square, gradient in zip(means, squares, found, strict=True):
            mean += gradient / len(batches)
            square += gradient**2 / len(batches)
    model.train(training)
    for value, flag in zip(values, flags, strict=True):
        value.requires_grad_(flag)
    combined = iter([combine(v.detach(), m, s) for v, m, s in zip(values, means, squares, strict=True)])
    return [block.l1([next(combined) for _ in block.values()]) for block in blocks]
