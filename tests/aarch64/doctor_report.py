"""Says what `edge-far doctor` found on each emulated core, and whether that is right.

    doctor_report.py CORE=JSON ...

Right is: the core is known by its name, the user land is 64-bit, Python and packages are complete, and of the
instructions the dot product is seen on the core that has it. Exit code 1 where something is not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOT_PRODUCT = frozenset({"cortex-a76"})


def problems_of(core: str, document: dict[str, Any]) -> list[str]:
    """Return what is wrong with the document of one core."""
    found = {finding["name"]: finding for finding in document["findings"]}
    wrong = [
        f"{name}: {found[name]['read']}"
        for name in ("user land", "python", "onnxruntime", "packages", "memory limit")
        if found[name]["verdict"] != "ok"
    ]
    if found["user land"]["read"] != "64-bit (aarch64)":
        wrong.append(f"user land: {found['user land']['read']}")
    if core not in found["board"]["read"]:
        wrong.append(f"board: {found['board']['read']}")
    if ("dot product" in found["instructions"]["read"] and found["instructions"]["verdict"] == "ok") != (
        core in DOT_PRODUCT
    ):
        wrong.append(f"instructions: {found['instructions']['read']}")
    return wrong


def main(arguments: Sequence[str]) -> int:
    """Print a line a core; return the exit code."""
    status = 0
    for word in arguments:
        core, _, path = word.partition("=")
        try:
            wrong = problems_of(core, json.loads(Path(path).read_bytes()))
        except (OSError, ValueError, KeyError) as error:
            wrong = [f"no document: {error!r}"]
        status |= bool(wrong)
        print(f"{core:<12} {'; '.join(wrong) or 'as it should be'}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
