"""What the owner of a fleet asks for: the settings of `flwr run`, checked before the first device hears of them.

In `[tool.flwr.app.config]` of deploy/fleet-app/pyproject.toml they have the names below with hyphens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from edge_far.errors import ConfigError
from edge_far.fleet.terms import Order
from edge_far.json_file import Count, Damaged, Size, Within, decode

__all__ = ["STRATEGIES", "FleetPlan"]

STRATEGIES = ("fedavg", "fedprox", "fedadam", "trimmed")
MARGIN_S = 5.0  # for the answer's way back
MARGIN_SHARE = 0.05


@dataclass(frozen=True)
class FleetPlan:
    """The settings of a fleet; seconds, and shares from 0 to 1. Empty texts and 0 mean: not wanted."""

    bundle: str
    state: str
    rounds: Annotated[int, Within(0, 100_000)]
    epochs: Annotated[int, Within(1, 100)]
    learning_rate_percent: Annotated[float, Within(0.1, 1000)]
    strategy: Literal["fedavg", "fedprox", "fedadam", "trimmed"]
    traffic: Literal["float32", "int8"]
    min_nodes: Size
    fraction: Annotated[float, Within(0.001, 1)]
    round_seconds: Annotated[float, Within(10, 1e6)]
    most_norm: Annotated[float, Within(1e-6, 1e6)]
    clip_norm: Annotated[float, Within(0, 1e6)]
    privacy_noise: Annotated[float, Within(0, 1e3)]
    proximal_mu: Annotated[float, Within(0, 1e3)]
    server_rate: Annotated[float, Within(1e-9, 10)]
    trim: Annotated[float, Within(0, 0.499)]
    seed: Count
    eval: str
    python: str
    release: bool

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> FleetPlan:
        """Return the plan that `flwr run` was given; raises ConfigError (78) for one that cannot be."""
        document = {name.replace("-", "_"): value for name, value in settings.items()}
        try:
            plan: FleetPlan = decode(cls, document, "")
        except Damaged as error:
            raise ConfigError(str(error).replace("_", "-"), where="--run-config") from error
        plan._refuse_contradictions()
        return plan

    def _refuse_contradictions(self) -> None:
        for what in ("bundle", "state"):
            if not getattr(self, what):
                raise ConfigError(f"'{what}' names no directory", where="--run-config", hint=f"{what}='\"/path\"'")
        if self.strategy == "fedprox" and not self.proximal_mu:
            raise ConfigError("fedprox needs proximal-mu above 0", where="--run-config", hint="0.01 is a beginning")
        if self.strategy != "fedprox" and self.proximal_mu:
            raise ConfigError("proximal-mu is of strategy 'fedprox' alone", where="--run-config")
        if self.privacy_noise and not self.clip_norm:
            hint = "the noise is a multiple of it"
            raise ConfigError("privacy-noise needs clip-norm above 0", where="--run-config", hint=hint)
        if self.privacy_noise and self.strategy != "fedavg":
            raise ConfigError("privacy-noise is of strategy 'fedavg' alone", where="--run-config")
        if self.privacy_noise and self.traffic != "float32":
            hint = "what rounding keeps for later rounds would not be clipped"
            raise ConfigError("privacy-noise needs traffic 'float32'", where="--run-config", hint=hint)

    @property
    def directory(self) -> Path:
        """Return where the rounds are kept."""
        return Path(self.state)

    def order(self, kind: Literal["train", "release"], bundle: str, number: int) -> Order:
        """Return what a device is asked for in a round; it must answer a little before the server gives up."""
        margin_s = max(MARGIN_S, self.round_seconds * MARGIN_SHARE)
        return Order(
            kind=kind,
            bundle=bundle,
            round=number,
            epochs=self.epochs,
            learning_rate_percent=self.learning_rate_percent,
            traffic=self.traffic,
            clip_norm=self.clip_norm,
            most_norm=self.most_norm,
            proximal_mu=self.proximal_mu,
            wait_s=max(1.0, self.round_seconds - margin_s),
            seed=self.seed + number,
        )
