"""A bag-of-words classifier, the baseline to beat: logistic regression on word unigrams and bigrams.

NumPy only. Full-batch training to convergence; the L2 penalty is the one with the best accuracy on the eval
split.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_far.texts.data import Example

__all__ = ["BagOfWords", "Baseline", "measure_baseline"]

PENALTIES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
MAX_ITERATIONS = 500
HISTORY = 10  # pairs kept by L-BFGS
TOLERANCE = 1e-5  # largest absolute gradient at convergence
ARMIJO = 1e-4


@dataclass(frozen=True)
class Baseline:
    """Accuracies of the tuned bag of words in [0, 1], its L2 penalty, and the number of features."""

    eval_accuracy: float
    test_accuracy: float
    penalty: float
    features: int


class BagOfWords:
    """Multinomial logistic regression on L2-normalised binary word unigrams and bigrams."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty
        self.features: dict[str, int] = {}
        self.labels: list[str] = []
        self.weights = np.zeros((0, 0))
        self.largest_gradient = float("inf")

    def fit(self, examples: Sequence[Example]) -> BagOfWords:
        """Train from zero to convergence (L-BFGS); `largest_gradient` says how close it came."""
        names = sorted({term for example in examples for term in _terms(example.text)})
        self.features = {name: column for column, name in enumerate(names)}
        self.labels = sorted({str(example.label) for example in examples})
        inputs = self._matrix(examples)
        targets = np.array([self.labels.index(str(example.label)) for example in examples])
        start = np.zeros((inputs.shape[1], len(self.labels)))
        self.weights, self.largest_gradient = _minimise(inputs, targets, start, self.penalty)
        return self

    def predict(self, examples: Sequence[Example]) -> list[str]:
        """Return the most probable label of each example; words never seen in training count nothing."""
        scores = self._matrix(examples) @ self.weights
        return [self.labels[column] for column in scores.argmax(axis=1)]

    def accuracy(self, examples: Sequence[Example]) -> float:
        """Return the share of examples whose label is predicted."""
        predicted = self.predict(examples)
        return float(np.mean([label == example.label for label, example in zip(predicted, examples, strict=True)]))

    def _matrix(self, examples: Sequence[Example]) -> np.ndarray:
        """Return the features [examples, terms + 1]; the last column is the constant of the bias."""
        matrix = np.zeros((len(examples), len(self.features) + 1))
        for row, example in enumerate(examples):
            columns = [self.features[term] for term in _terms(example.text) if term in self.features]
            matrix[row, columns] = 1 / np.sqrt(max(len(columns), 1))
        matrix[:, -1] = 1
        return matrix


def measure_baseline(train: Sequence[Example], evaluation: Sequence[Example], test: Sequence[Example]) -> Baseline:
    """Fit one classifier a penalty, keep the best on `evaluation`, and measure that one on `test`."""
    candidates = [BagOfWords(penalty).fit(train) for penalty in PENALTIES]
    best = max(candidates, key=lambda candidate: candidate.accuracy(evaluation))
    return Baseline(best.accuracy(evaluation), best.accuracy(test), best.penalty, len(best.features))


def _terms(text: str) -> set[str]:
    words = re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower())
    words = [word.replace("'", "") for word in words]
    return set(words) | {f"{first} {second}" for first, second in itertools.pairwise(words)}


def _loss(inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
    """Return mean cross-entropy + penalty/2 |W|^2 without the bias row, and the gradient."""
    scores = inputs @ weights
    scores -= scores.max(axis=1, keepdims=True)
    log_norm = np.log(np.exp(scores).sum(axis=1))
    rows = np.arange(len(targets))
    loss = float(np.mean(log_norm - scores[rows, targets]))
    error = np.exp(scores - log_norm[:, None])
    error[rows, targets] -= 1
    decayed = weights.copy()
    decayed[-1] = 0
    return loss + penalty / 2 * float(np.sum(decayed**2)), inputs.T @ error / len(targets) + penalty * decayed


def _minimise(inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Minimise `_loss` by L-BFGS with backtracking (Nocedal and Wright, algorithm 7.5)."""
    loss, gradient = _loss(inputs, targets, weights, penalty)
    moves: list[np.ndarray] = []
    changes: list[np.ndarray] = []
    for _ in range(MAX_ITERATIONS):
        if np.abs(gradient).max() < TOLERANCE:
            break
        direction = -_inverse_hessian_times(gradient, moves, changes)
        slope = float(np.sum(direction * gradient))
        length = 1.0
        while True:
            new_weights = weights + length * direction
            new_loss, new_gradient = _loss(inputs, targets, new_weights, penalty)
            if new_loss <= loss + ARMIJO * length * slope or length < 1e-10:
                break
            length /= 2
        move, change = new_weights - weights, new_gradient - gradient
        if float(np.sum(move * change)) > 1e-14:
            moves, changes = [*moves, move][-HISTORY:], [*changes, change][-HISTORY:]
        weights, loss, gradient = new_weights, new_loss, new_gradient
    return weights, float(np.abs(gradient).max())


def _inverse_hessian_times(gradient: np.ndarray, moves: list[np.ndarray], changes: list[np.ndarray]) -> np.ndarray:
    result = gradient.copy()
    factors = []
    for move, change in zip(reversed(moves), reversed(changes), strict=True):
        factor = float(np.sum(move * result) / np.sum(move * change))
        factors.append(factor)
        result -= factor * change
    if moves:
        result *= float(np.sum(moves[-1] * changes[-1]) / np.sum(changes[-1] ** 2))
    for move, change, factor in zip(moves, changes, reversed(factors), strict=True):
        result += (factor - float(np.sum(change * result) / np.sum(move * change))) * move
    return result
