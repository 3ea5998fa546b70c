"""The geometries that can be measured by name; weights are random, since time and memory do not depend on them.

Knows sizes only: torch models of them are made in models.py.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GEOMETRIES", "Geometry"]


@dataclass(frozen=True)
class Geometry:
    """The sizes of an encoder; `architecture` is bert, distilbert or mpnet."""

    architecture: str
    hidden: int
    blocks: int
    heads: int
    ffn: int
    vocabulary: int = 30522
    positions: int = 512


GEOMETRIES = {
    "distilbert": Geometry("distilbert", hidden=768, blocks=6, heads=12, ffn=3072),
    "bert-base": Geometry("bert", hidden=768, blocks=12, heads=12, ffn=3072),
    "minilm": Geometry("bert", hidden=384, blocks=6, heads=12, ffn=1536),
    "mpnet": Geometry("mpnet", hidden=768, blocks=12, heads=12, ffn=3072, vocabulary=30527, positions=514),
    # For trials and for benchmarks/memory_prediction.py.
    "distilbert-2": Geometry("distilbert", hidden=768, blocks=2, heads=12, ffn=3072),
    "tiny": Geometry("bert", hidden=128, blocks=2, heads=2, ffn=512, vocabulary=2048),
}
