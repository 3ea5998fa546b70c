"""The process that measures one row: python -m edge_far.bench.child TASK.json RESULT.json"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_far.bench.work.task import Measurement, Task
from edge_far.errors import EdgeFarError

__all__ = ["measure"]


def measure(task: Task) -> Measurement:
    """Measure one row in this process; imports only the engine that is measured."""
    if task.engine == "torch":
        from edge_far.bench.work.torch_steps import measure_torch

        return measure_torch(task)
    from edge_far.bench.work.bundle_steps import measure_bundle

    return measure_bundle(task)


def main(task: str, result: str) -> int:
    """Read the task, measure, write the result; an error is the last line on stderr."""
    try:
        measure(Task.read(Path(task))).write(Path(result))
    except EdgeFarError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
