"""What a compiler pass reports: what it changed, what it refused and why (`edge-far export -v` prints it)."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["PassNote"]


@dataclass
class PassNote:
    """One pass's report; `changes` counts by kind, `refusals` are sentences."""

    name: str
    changes: dict[str, int] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def changed(self, kind: str, count: int = 1) -> None:
        """Count a change of a kind such as 'scales fused'."""
        self.changes[kind] = self.changes.get(kind, 0) + count

    def refuse(self, reason: str) -> None:
        """Record why something was left as it is."""
        self.refusals.append(reason)

    def __str__(self) -> str:
        changes = ", ".join(f"{count} {kind}" for kind, count in self.changes.items() if count) or "nothing changed"
        return "\n".join([f"{self.name}: {changes}", *(f"  refused: {reason}" for reason in self.refusals)])
