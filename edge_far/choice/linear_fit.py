"""A regularised linear model on vectors with the task's loss: the linear probe, and what a fitted head begins with.

The objective is scikit-learn's: sum of the losses + ||weights||^2 / (2 C), on standardised vectors, biases without
penalty: logistic regression, or ridge where labels are numbers. It is convex, so a fit is told by its gradient alone. C
is chosen on a tenth of the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edge_far.far.above_cut import mean_loss
from edge_far.tasks.interface import Task

__all__ = ["STRENGTHS", "LinearFit", "choose_strength", "fit_linear"]

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
HELD_OUT = 10
ITERATIONS = 100
TOLERANCE = 1e-5
SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear layer for the vectors as they are: weight float32 [outputs, width], bias float32 [outputs]."""

    weight: np.ndarray
    bias: np.ndarray
    strength: float

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """Return the logits of each vector, float32 [N, outputs]."""
        found: np.ndarray = vectors @ self.weight.T + self.bias
        return found

    def put_into(self, linear: nn.Linear) -> None:
        """Let a layer of this shape begin with the fit."""
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(self.weight))
            linear.bias.copy_(torch.from_numpy(self.bias))


def fit_linear(
    vectors: np.ndarray, targets: np.ndarray, task: Task, strength: float, start: LinearFit | None = None
) -> LinearFit:
    """Fit by L-BFGS; `vectors` float [N, width], or [N, S, width] of tokens, zero where there is none.

    `targets` are the task's, `strength` is C; `start` saves iterations.
    """
    flat = vectors if vectors.ndim == 2 else vectors[vectors.any(axis=-1)]
    mean, deviation = flat.mean(axis=0), np.maximum(flat.std(axis=0), SMALLEST_DEVIATION)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = torch.from_numpy(((vectors - mean) / deviation).astype(np.float32)).to(device)
    outputs = task.outputs
    weight, bias = torch.zeros(outputs, vectors.shape[-1], device=device), torch.zeros(outputs, device=device)
    if start is not None:
        weight = torch.from_numpy((start.weight * deviation).astype(np.float32)).to(device)
        bias = torch.from_numpy((start.bias + start.weight @ mean).astype(np.float32)).to(device)
    parameters = [weight.requires_grad_(True), bias.requires_grad_(True)]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=ITERATIONS,
        tolerance_grad=TOLERANCE,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = weight.square().sum() / (2 * strength * len(inputs))
        loss = mean_loss(task.info.loss, inputs @ weight.T + bias, targets) + penalty
        loss.backward()
        return loss

    optimizer.step(objective)
    scaled = weight.detach().cpu().numpy().astype(np.float64) / deviation
    shifted = bias.detach().cpu().numpy() - scaled @ mean
    return LinearFit(scaled.astype(np.float32), shifted.astype(np.float32), strength)


def choose_strength(
    vectors: np.ndarray, targets: np.ndarray, task: Task, seed: int, strengths: Sequence[float] = STRENGTHS
) -> LinearFit:
    """Fit with the C that does best on a tenth of the examples held out, then on all of them."""
    order = np.random.default_rng(seed).permutation(len(targets))
    held_out, kept = order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :]
    best, best_score, fit = strengths[0], -np.inf, None
    for strength in strengths if len(held_out) else ():
        fit = fit_linear(vectors[kept], targets[kept], task, strength, fit)
        score = float(task.credits(targets[held_out], fit.logits(vectors[held_out])).mean())
        if score > best_score:
            best, best_score = strength, score
    return fit_linear(vectors, targets, task, best, fit)
