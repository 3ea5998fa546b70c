"""A tiny bundle with places for labels to come: two of a five-label bundle's outputs are theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from edge_far.bundles.bundle import Bundle, open_bundle

LABELS = ["label-0", "label-1", "label-2", "reserved-0", "reserved-1"]


def with_places(bundle: Path, out: Path, labels: list[str] | None = None) -> Bundle:
    """Write a bundle whose outputs have these labels."""
    shutil.copytree(bundle, out)
    path = out / "manifest.json"
    document = json.loads(path.read_text())
    document["labels"] = labels or LABELS
    path.write_text(json.dumps(document))
    return open_bundle(out)
