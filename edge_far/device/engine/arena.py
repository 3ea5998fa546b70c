"""One arena for the activations of all sessions and shapes: a single region, from which every tensor is cut.

ONNX Runtime's arena (a best-fit allocator with coalescing, core/framework/bfc_arena.cc) grows by regions, and blocks of
two regions never become one: grown as asked for, it keeps regions for every shape. Here a region is as large as all
activations together. That is address space; only pages that are written to become resident, from its beginning on, so
what is held settles at the need of the largest shape. In the C library's heap the same tensors lie between blocks of
other owners and leave holes that nothing else fills (docs/lab/performance.md).

The arena never gives its first region back, and the size of later ones is heeded after it was shrunk: so the first is
as small as can be, and a process begins with a run that shrinks it (PortableBackend).
"""

from __future__ import annotations

import onnxruntime as ort

from edge_far.device.engine.backend import ARENA_ROOM

__all__ = ["SHRINK", "make_arena"]

# Where nobody said how much is needed: evaluation of one release, say. What does not fit doubles the arena.
DEFAULT_MIB = 64.0
LARGEST_REGION_MIB = 2047  # the Python interface takes a 32-bit number of bytes
NEXT_POWER_OF_TWO = 0  # the only growth of the arena that heeds a size of regions

SHRINK = ort.RunOptions()
SHRINK.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

_made = False


def make_arena(mib: float | None = None) -> None:
    """Make the arena that sessions with `session.use_env_allocators` share, for `mib` of tensors.

    A process has one: later calls change nothing. A run with the options SHRINK gives its memory back to the C library;
    the next one takes a region of that size.
    """
    global _made
    if _made:
        return
    _made = True
    wanted = DEFAULT_MIB if mib is None else mib
    region = min(int(wanted * ARENA_ROOM) + 1, LARGEST_REGION_MIB) << 20
    settings = {
        "arena_extend_strategy": NEXT_POWER_OF_TWO,
        "initial_chunk_size_bytes": 1,
        "initial_growth_chunk_size_bytes": region,
        "max_dead_bytes_per_chunk": 1,  # cut blocks to size: by default one twice as large as asked for is given whole
    }
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(settings))
