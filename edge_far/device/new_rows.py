"""Fits the rows of a head for labels that took a free place, on what the model makes of their examples.

What the head reads is found without a graph of its own: of one example, the gradient of a row of the head's weight is
that of its bias times what it read. The rows are then a regularised logistic fit (softmax over all outputs, the other
rows as they are), a convex problem, by accelerated gradient descent (Nesterov 1983) in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edge_far.device.engine.backend import Backend
from edge_far.errors import BundleError
from edge_far.texts.batches import Batch

__all__ = ["EXAMPLES_OF_A_LABEL", "fit_new_rows", "fitted_rows", "head_of"]

EXAMPLES_OF_A_LABEL, OTHER_EXAMPLES = 64, 256
ITERATIONS = 500
PENALTY = 1e-3
SMALLEST = 1e-6


def head_of(names: Sequence[str], shapes: Sequence[tuple[int, ...]], outputs: int) -> str:
    """Return the name of the last layer's weight among the learners; raises BundleError where there is none."""
    found = [n for n, s in zip(names, shapes, strict=True) if n.endswith(".weight") and len(s) == 2 and s[0] == outputs]
    heads = [name for name in found if "classif" in name]
    if not heads:
        raise BundleError("has no head among its learners", hint="export the bundle again")
    return heads[-1]


def fit_new_rows(
    backend: Backend,
    batch_of: Callable[[int], Batch],
    targets: np.ndarray,
    rows: Sequence[int],
    outputs: int,
    seed: int,
) -> int:
    """Fit rows of the head in place; return on how many examples. The backend's gradients are zero afterwards.

    `batch_of` gives an example by its number as a batch of one, `targets` int64 [N] are the examples' labels.
    """
    parameters = backend.parameters
    name = head_of(list(parameters), [array.shape for array in parameters.values()], outputs)
    bias = name.removesuffix(".weight") + ".bias"
    chosen, weights = _chosen(targets, rows, seed)
    vectors = np.stack([_read_by_head(backend, batch_of(int(number)), name, bias) for number in chosen])
    weight, offset = parameters[name], parameters[bias]
    weight[list(rows)], offset[list(rows)] = fitted_rows(vectors, targets[chosen], weight, offset, rows, weights)
    return len(chosen)


def _chosen(targets: np.ndarray, rows: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return some examples of each new label and some others, and for how many of their kind each stands."""
    random = np.random.default_rng(seed)
    groups = [(np.flatnonzero(targets == row), EXAMPLES_OF_A_LABEL) for row in rows]
    groups.append((np.flatnonzero(~np.isin(targets, rows) & (targets >= 0)), OTHER_EXAMPLES))
    chosen = [random.permutation(members)[:most] for members, most in groups]
    weights = [
        np.full(len(part), len(members) / max(len(part), 1)) for part, (members, _) in zip(chosen, groups, strict=True)
    ]
    return np.concatenate(chosen), np.concatenate(weights)


def _read_by_head(backend: Backend, batch: Batch, weight: str, bias: str) -> np.ndarray:
    """Return what the head reads of one example, float64 [width]."""
    for gradient in backend.gradients.values():
        gradient[...] = 0
    backend.accumulate(batch, 1.0, None)
    errors = backend.gradients[bias].astype(np.float64)
    row = int(np.abs(errors).argmax())
    found = backend.gradients[weight][row].astype(np.float64)
    for gradient in backend.gradients.values():
        gradient[...] = 0
    # An example that the model is utterly sure of tells nothing, and needs to tell nothing.
    return found / errors[row] if abs(errors[row]) > SMALLEST else np.zeros_like(found)


def fitted_rows(
    vectors: np.ndarray,
    targets: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    rows: Sequence[int],
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight float32 [rows, width] and bias float32 [rows] with the least mean cross-entropy, the others fixed.

    vectors float64 [N, width]; targets int64 [N]; weight [outputs, width] and bias [outputs] are the whole head. An
    example counts as often as `weights` says, float64 [N].
    """
    counts = np.ones(len(vectors)) if weights is None else weights
    shares = (counts / counts.sum())[:, None]
    read = np.concatenate([vectors, np.ones((len(vectors), 1))], axis=1)
    head = np.concatenate([weight, bias[:, None]], axis=1).astype(np.float64)
    head[list(rows)] = 0
    wanted = (targets[:, None] == np.array(rows)).astype(np.float64)
    step = 1.0 / (0.5 * np.linalg.norm(read * np.sqrt(shares), 2) ** 2 + PENALTY)
    now = before = np.zeros((len(rows), read.shape[1]))
    fixed = read @ head.T
    for iteration in range(ITERATIONS):
        ahead = now + iteration / (iteration + 3) * (now - before)
        fixed[:, list(rows)] = read @ ahead.T
        odds = np.exp(fixed - fixed.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        slope = ((odds[:, list(rows)] - wanted) * shares).T @ read
        slope[:, :-1] += PENALTY * ahead[:, :-1]
        before, now = now, ahead - step * slope
    return now[:, :-1].astype(np.float32), now[:, -1].astype(np.float32)
