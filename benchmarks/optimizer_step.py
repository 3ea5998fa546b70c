"""Time of one optimiser step over 17.6 M parameters (FAR_10 of DistilBERT), beside torch where it is installed.

    python benchmarks/optimizer_step.py [--optimizers adamw lion] [--threads 1 2] [--chunks 4096 32768 131072]

Prints the least of several runs in milliseconds, with the versions that gave it.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable

import numpy as np

from edge_far.device.board.memory import MIB
from edge_far.device.optimizers import adamw8bit
from edge_far.device.optimizers import base as optimizer
from edge_far.device.optimizers.registry import OPTIMIZERS, make_optimizer, state_bytes

PARAMETERS = 17_620_532
SHAPE = (PARAMETERS // 4, 4)


def least_ms(run: Callable[[], object], repeats: int = 7) -> float:
    """Return the shortest of several runs, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def numpy_rows(names: list[str], chunks: list[int]) -> None:
    random = np.random.default_rng(0)
    parameters = {"weight": random.standard_normal(SHAPE, np.float32)}
    gradients = {"weight": random.standard_normal(SHAPE, np.float32)}
    print(f"numpy {np.__version__}")
    default = optimizer.CHUNK
    for name in names:
        print(f"{name}: state {state_bytes(name, [SHAPE]) / MIB:.1f} MiB")
        for chunk in chunks or [default]:
            optimizer.CHUNK = adamw8bit.CHUNK = chunk
            made = make_optimizer(name, parameters, weight_decay=0.01, no_decay=())
            time_ms = least_ms(lambda made=made: made.step(gradients, 1e-5, 0.5))
            print(f"  step, chunk {chunk:7d}: {time_ms:7.1f} ms")
            del made
    print(f"global norm: {least_ms(lambda: optimizer.global_norm(gradients)):7.1f} ms")


def torch_rows(threads: list[int]) -> None:
    import torch

    print(f"torch {torch.__version__}")
    parameter = torch.nn.Parameter(torch.randn(SHAPE))
    parameter.grad = torch.randn(SHAPE)
    for count in threads:
        torch.set_num_threads(count)
        for kind in ("foreach", "fused"):
            adamw = torch.optim.AdamW([parameter], lr=1e-5, **{kind: True})
            print(f"  step, {count} thread(s), {kind}: {least_ms(adamw.step):7.1f} ms")
        clip = least_ms(lambda: torch.nn.utils.clip_grad_norm_([parameter], 1.0))
        print(f"  clip, {count} thread(s): {clip:7.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch")
    parser.add_argument("--chunks", type=int, nargs="+", default=[], help="elements (default: the built-in size)")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    options = parser.parse_args()
    numpy_rows(options.optimizers, options.chunks)
    if importlib.util.find_spec("torch"):
        torch_rows(options.threads)
