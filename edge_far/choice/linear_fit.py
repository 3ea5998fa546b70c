"""A regularised multinomial logistic regression on vectors: the linear probe, and what a fitted head begins with.

The objective is scikit-learn's: sum of the cross-entropies + ||weights||^2 / (2 C), on standardised vectors, biases
without penalty. It is convex, so a fit is told by its gradient alone. C is chosen on a tenth of the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

__all__ = ["STRENGTHS", "LinearFit", "choose_strength", "fit_linear"]

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
HELD_OUT = 10
ITERATIONS = 100
TOLERANCE = 1e-5
SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear layer for the vectors as they are: weight float32 [labels, width], bias float32 [labels]."""

    weight: np.ndarray
    bias: np.ndarray
    strength: float

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return the label of each vector, int64 [N]."""
        best: np.ndarray = (vectors @ self.weight.T + self.bias).argmax(axis=1)
        return best

    def put_into(self, linear: nn.Linear) -> None:
        """Let a layer of this shape begin with the fit."""
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(self.weight))
            linear.bias.copy_(torch.from_numpy(self.bias))


def fit_linear(
    vectors: np.ndarray, labels: np.ndarray, classes: int, strength: float, start: LinearFit | None = None
) -> LinearFit:
    """Fit by L-BFGS; `vectors` float [N, width], `labels` int [N], `strength` is C; `start` saves iterations."""
    mean, deviation = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), SMALLEST_DEVIATION)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = torch.from_numpy(((vectors - mean) / deviation).astype(np.float32)).to(device)
    targets = torch.from_numpy(np.asarray(labels, np.int64)).to(device)
    weight, bias = torch.zeros(classes, vectors.shape[1], device=device), torch.zeros(classes, device=device)
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
        loss = cross_entropy(inputs @ weight.T + bias, targets) + penalty
        loss.backward()
        return loss

    optimizer.step(objective)
    scaled = weight.detach().cpu().numpy().astype(np.float64) / deviation
    shifted = bias.detach().cpu().numpy() - scaled @ mean
    return LinearFit(scaled.astype(np.float32), shifted.astype(np.float32), strength)


def choose_strength(
    vectors: np.ndarray, labels: np.ndarray, classes: int, seed: int, strengths: Sequence[float] = STRENGTHS
) -> LinearFit:
    """Fit with the C that does best on a tenth of the examples held out, then on all of them."""
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out, kept = order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :]
    best, best_score, fit = strengths[0], -1.0, None
    for strength in strengths if len(held_out) else ():
        fit = fit_linear(vectors[kept], labels[kept], classes, strength, fit)
        score = float((fit.predict(vectors[held_out]) == labels[held_out]).mean())
        if score > best_score:
            best, best_score = strength, score
    return fit_linear(vectors, labels, classes, best, fit)
