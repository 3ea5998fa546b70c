"""The rungs that are tried, and what each costs a device: counted from the model's shape, full fine-tuning is 1."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_far.far.method import cut_of

__all__ = ["Geometry", "Rung", "default_rungs", "forward_flops", "job_flops", "job_work", "step_flops"]

# Of a trained product three are made: forward, its input's gradient, its weight's gradient.
FULL = 3


@dataclass(frozen=True)
class Rung:
    """What trains: the method's name, attention `full` or `heads`, and the share of FFN nodes and of heads."""

    method: str
    attention: str = "full"
    retention: float = 0.1
    attention_retention: float = 1.0
    selection: str = "far"

    @property
    def name(self) -> str:
        """Return how tables call it."""
        return self.method if self.attention == "full" else f"{self.method}, heads"

    def by_heads(self, share: float) -> Rung:
        """Return the same with attention by heads, of which a share learns."""
        return replace(self, attention="heads", attention_retention=share)


@dataclass(frozen=True)
class Geometry:
    """Of an encoder: blocks, width, FFN nodes of a block, labels, and the usual number of tokens of a text.

    `inner` is the width within blocks, where that is another; what leads from one to the other is not counted.
    """

    blocks: int
    width: int
    ffn: int
    labels: int
    tokens: float
    of_tokens: bool = False
    inner: int | None = None

    @property
    def within(self) -> int:
        """Return the width of attention and FFN."""
        return self.inner or self.width


def default_rungs(blocks: int, retention: float, selection: str = "far") -> list[Rung]:
    """Return the ladder of an encoder from the cheapest up: head, top-1, top-2, top-half, far."""
    tops = sorted({count for count in (1, 2, blocks // 2) if 0 < count < blocks})
    methods = ("head", *(f"top-{count}" for count in tops), "far")
    return [Rung(method, retention=retention, selection=selection) for method in methods]


def forward_flops(shape: Geometry, blocks: int) -> float:
    """Return the floating-point operations of one text through that many blocks, products and attention alone."""
    return blocks * (_linear(shape, 4 * shape.within**2 + 2 * shape.within * shape.ffn) + _attention(shape))


def step_flops(rung: Rung, shape: Geometry, pooling: str) -> float:
    """Return the operations of one text in a training step above the cut; full fine-tuning computes all tokens.

    Where the head reads the first token alone, the last block computes what that token needs.
    """
    if rung.method == "full":
        return FULL * forward_flops(shape, shape.blocks)
    cut = cut_of(rung.method, shape.blocks)
    head = FULL * 2.0 * shape.width * shape.labels * (shape.tokens if shape.of_tokens else 1.0)
    return head + sum(
        _block(rung, shape, block == cut, block == shape.blocks - 1 and pooling == "cls")
        for block in range(cut, shape.blocks)
    )


def job_flops(rung: Rung, shape: Geometry, pooling: str, epochs: int) -> float:
    """Return the operations of a training example over a whole run, the prefix' pass included."""
    return epochs * step_flops(rung, shape, pooling) + forward_flops(shape, cut_of(rung.method, shape.blocks))


def job_work(rung: Rung, shape: Geometry, pooling: str, epochs: int, full_epochs: int) -> float:
    """Return the work of a training example over a whole run, the prefix' pass included; that of full is 1."""
    return job_flops(rung, shape, pooling, epochs) / job_flops(Rung("full"), shape, pooling, full_epochs)


def _linear(shape: Geometry, weights: float) -> float:
    return 2.0 * shape.tokens * weights


def _attention(shape: Geometry) -> float:
    return 4.0 * shape.tokens**2 * shape.within


def _block(rung: Rung, shape: Geometry, lowest: bool, first_token: bool) -> float:
    """Return a block's operations: each product forward, its input's gradient, and its learners' share of weights'.

    Nothing below the lowest block learns, so no gradient leaves its query, key and value for its input.
    """
    rows = 1.0 / shape.tokens if first_token else 1.0
    inner = _linear(shape, shape.within**2)
    share = 1.0 if rung.attention == "full" else rung.attention_retention
    query, both = rows * inner, 2 * inner
    flops = (query + both) * (1 + (0 if lowest else 1) + share)
    flops += rows * inner * (2 + share)
    flops += rows * _attention(shape) * (1 + 2 * (share if lowest else 1.0))
    return flops + rows * _linear(shape, 2 * shape.within * shape.ffn) * (2 + rung.retention)
