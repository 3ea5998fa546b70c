"""Central evaluation: the fleet's learners on the host's own labelled data, where there is some.

A child in an environment that has ONNX Runtime measures; Flower's has none, and shall have none.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from edge_far.bundles.arrays import write_arrays
from edge_far.errors import Unavailable
from edge_far.fleet.exchange import Arrays
from edge_far.process.children import child_environment, module_command

__all__ = ["evaluated"]


def evaluated(bundle: Path, learners: Arrays, data: Path, python: Path) -> dict[str, Any]:
    """Return the document of `edge-far eval` for these learners; raises Unavailable (69) where it does not run."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "learners.safetensors"
        write_arrays(file, learners)
        command = [*module_command("edge_far.cli", python), "eval", str(bundle)]
        command += ["--learners", str(file), "--data", str(data), "--json", "-q"]
        try:
            done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
        except OSError as error:
            raise Unavailable(f"Python does not start here: {error.strerror}", where=str(python)) from error
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise Unavailable(f"'edge-far eval' ended with status {done.returncode}: {told[0]}", where=str(python))
    document: dict[str, Any] = json.loads(done.stdout)
    return document
