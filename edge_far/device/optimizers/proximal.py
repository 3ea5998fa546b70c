"""FedProx's term (Li et al., arXiv 1812.06127, section 3.2): holds a run near the learners it began with.

The loss becomes loss + mu/2 * |w - w0|^2, so every gradient gets mu * (w - w0). w0 is the file of --learners, or the
bundle's own, also in a run that is continued. It costs one more copy of the learners.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["Proximal"]

CHUNK = 1 << 16


class Proximal:
    """The term of one run; `start` is copied."""

    def __init__(self, mu: float, start: Mapping[str, np.ndarray]) -> None:
        self._mu = np.float32(mu)
        self._start = {name: np.array(array, np.float32) for name, array in start.items()}
        self._scratch = np.empty(CHUNK, np.float32)

    def add_to(self, gradients: Mapping[str, np.ndarray], parameters: Mapping[str, np.ndarray]) -> None:
        """Add the term's gradient in place; float32, all of the same names and shapes."""
        for name, start in self._start.items():
            near, now, gradient = start.reshape(-1), parameters[name].reshape(-1), gradients[name].reshape(-1)
            for begin in range(0, near.size, CHUNK):
                part = slice(begin, begin + CHUNK)
                away = self._scratch[: near[part].size]
                np.subtract(now[part], near[part], out=away)
                away *= self._mu
                gradient[part] += away
