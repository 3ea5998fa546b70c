"""AdamW and gradient clipping in NumPy, in place, with the same updates as torch.optim.AdamW.

An update reads and writes four arrays as large as the parameters. Done array by array, as torch's foreach
implementation does, each of its thirteen passes would go through memory; here all passes work on one chunk
that stays in cache before the next chunk is touched.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge_far.errors import BundleError

__all__ = ["AdamW", "AdamWSettings", "clip_scale", "global_norm"]

CHUNK = 32 * 1024  # elements; chosen with benchmarks/optimizer_step.py
NORM_CHUNK = 8 * 1024  # under 10,000 elements OpenBLAS adds in one thread, so the order of the sum is fixed


@dataclass(frozen=True, slots=True)
class AdamWSettings:
    """The constants of AdamW, with torch's defaults; weight decay applies to matrices only."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01


@dataclass(frozen=True, slots=True)
class _Update:
    """The factors of one optimiser step, bias correction and gradient scale folded in."""

    beta1: np.float32
    beta2: np.float32
    gradient_factor: np.float32
    square_factor: np.float32
    epsilon: np.float32
    step_size: np.float32
    keep: np.float32


class AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) on float32 arrays that are changed in place.

    The result does not depend on the number of threads: each element is computed on its own.
    """

    def __init__(
        self,
        parameters: Mapping[str, np.ndarray],
        settings: AdamWSettings | None = None,
        *,
        no_decay: Collection[str] | None = None,
        threads: int = 1,
    ) -> None:
        """Hold on to `parameters` (C-contiguous float32) and make their moments, 8 bytes a parameter.

        `no_decay` names the parameters without weight decay; by default those of fewer than two dimensions,
        which are the biases and the LayerNorms.
        """
        self.settings = settings or AdamWSettings()
        self.parameters = dict(parameters)
        self.steps = 0
        if no_decay is None:
            no_decay = [name for name, array in self.parameters.items() if array.ndim < 2]
        self.no_decay = frozenset(no_decay)
        self._flat = {name: _flat(name, array) for name, array in self.parameters.items()}
        self._first: dict[str, np.ndarray] = {
            name: np.zeros(array.shape, np.float32) for name, array in self.parameters.items()
        }
        self._second: dict[str, np.ndarray] = {
            name: np.zeros(array.shape, np.float32) for name, array in self.parameters.items()
        }
        self._work = _share(self._flat, max(1, threads))
        self._scratch = [np.empty(CHUNK, np.float32) for _ in self._work]
        self._pool = ThreadPoolExecutor(len(self._work), "adamw") if len(self._work) > 1 else None

    def step(self, gradients: Mapping[str, np.ndarray], learning_rate: float, scale: float = 1.0) -> None:
        """Update every parameter with its gradient times `scale`, a positive finite number.

        `gradients` has a C-contiguous float32 array for every parameter; it is not changed.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"gradient scale is {scale}: check the norm before the step")
        flat = {}
        for name, parameter in self.parameters.items():
            if gradients[name].shape != parameter.shape:
                raise ValueError(f"gradient of {name} is {gradients[name].shape}, not {parameter.shape}")
            flat[name] = _flat(name, gradients[name])
        self.steps += 1
        decayed = self._update(learning_rate, scale, self.settings.weight_decay)
        plain = self._update(learning_rate, scale, 0.0)

        def run(worker: int) -> None:
            for name, start, stop in self._work[worker]:
                part = slice(start, stop)
                _update_chunk(
                    self._flat[name][part],
                    flat[name][part],
                    self._first[name].reshape(-1)[part],
                    self._second[name].reshape(-1)[part],
                    self._scratch[worker][: stop - start],
                    plain if name in self.no_decay else decayed,
                )

        if self._pool is None:
            run(0)
        else:
            list(self._pool.map(run, range(len(self._work))))

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return the state to checkpoint: `steps` [1] and, without a copy, both moments of each parameter."""
        state: dict[str, np.ndarray] = {"steps": np.array([self.steps], np.int64)}
        state |= {f"first_moment/{name}": array for name, array in self._first.items()}
        state |= {f"second_moment/{name}": array for name, array in self._second.items()}
        return state

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy a state of `state_arrays` back; BundleError when it belongs to other parameters."""
        own = self.state_arrays()
        if missing := own.keys() - state.keys():
            raise BundleError(f"optimiser state lacks '{min(missing)}'", hint="it belongs to another bundle")
        if unknown := state.keys() - own.keys():
            raise BundleError(f"optimiser state has '{min(unknown)}' too many", hint="it belongs to another bundle")
        for name, array in own.items():
            if state[name].shape != array.shape or state[name].dtype != array.dtype:
                raise BundleError(
                    f"optimiser state '{name}' is {state[name].dtype}{list(state[name].shape)}, "
                    f"not {array.dtype}{list(array.shape)}",
                    hint="it belongs to another bundle",
                )
        for name, array in own.items():
            array[...] = state[name]
        self.steps = int(state["steps"][0])

    def _update(self, learning_rate: float, scale: float, weight_decay: float) -> _Update:
        """Torch has p -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps); sqrt(c2) is moved to the factors."""
        settings = self.settings
        correction1 = 1 - settings.beta1**self.steps
        root2 = math.sqrt(1 - settings.beta2**self.steps)
        return _Update(
            beta1=np.float32(settings.beta1),
            beta2=np.float32(settings.beta2),
            gradient_factor=np.float32((1 - settings.beta1) * scale),
            square_factor=np.float32((1 - settings.beta2) * scale * scale),
            epsilon=np.float32(settings.epsilon * root2),
            step_size=np.float32(learning_rate * root2 / correction1),
            keep=np.float32(1 - learning_rate * weight_decay),
        )


def global_norm(gradients: Mapping[str, np.ndarray]) -> float:
    """Return the L2 norm of all gradients, added in float64 in the mapping's order."""
    total = 0.0
    scratch = np.empty(NORM_CHUNK, np.float64)
    for name, gradient in gradients.items():
        flat = _flat(name, gradient)
        for start in range(0, flat.size, NORM_CHUNK):
            part = flat[start : start + NORM_CHUNK]
            wide = scratch[: part.size]
            wide[:] = part
            total += float(np.dot(wide, wide))
    return math.sqrt(total)


def clip_scale(norm: float, max_norm: float) -> float:
    """Return the factor torch.nn.utils.clip_grad_norm_ multiplies gradients with; 0 for an infinite norm."""
    return min(1.0, max_norm / (norm + 1e-6))


def _update_chunk(
    parameter: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    scratch: np.ndarray,
    by: _Update,
) -> None:
    np.multiply(gradient, by.gradient_factor, out=scratch)
    np.multiply(first, by.beta1, out=first)
    np.add(first, scratch, out=first)

    np.multiply(gradient, gradient, out=scratch)
    np.multiply(scratch, by.square_factor, out=scratch)
    np.multiply(second, by.beta2, out=second)
    np.add(second, scratch, out=second)

    np.sqrt(second, out=scratch)
    np.add(scratch, by.epsilon, out=scratch)
    np.divide(first, scratch, out=scratch)
    np.multiply(scratch, by.step_size, out=scratch)
    if by.keep != 1:
        np.multiply(parameter, by.keep, out=parameter)
    np.subtract(parameter, scratch, out=parameter)


def _flat(name: str, array: np.ndarray) -> np.ndarray:
    """Return a flat view; a copy would be updated instead of the parameter, so it is refused."""
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        raise ValueError(f"{name} is {array.dtype}, not a C-contiguous float32 array")
    return array.reshape(-1)


def _share(flat: Mapping[str, np.ndarray], threads: int) -> list[list[tuple[str, int, int]]]:
    """Cut all parameters into chunks and give each thread a run of them of about the same size."""
    chunks = [
        (name, start, min(start + CHUNK, array.size))
        for name, array in flat.items()
        for start in range(0, array.size, CHUNK)
    ]
    total = sum(stop - start for _, start, stop in chunks)
    shares: list[list[tuple[str, int, int]]] = [[] for _ in range(threads)]
    done = 0
    for chunk in chunks:
        shares[min(threads - 1, done * threads // max(1, total))].append(chunk)
        done += chunk[2] - chunk[1]
    return [share for share in shares if share] or [[]]
