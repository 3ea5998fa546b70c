"""The methods that are compared: rungs of the ladder, and what others do, in torch; one grid of learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import nn

from benchmarks.quality.selections import by_change, by_fisher, by_gradient, by_lot, primed
from edge_far.choice.rungs import Rung
from edge_far.choice.trials import Prepare
from edge_far.far.above_cut import last_linear
from edge_far.far.nodes import architecture_of
from edge_far.far.prime import Batch, PrimingSettings

__all__ = ["AUTO", "GRID", "METHODS", "PROBE", "Method"]

GRID = (1e-4, 3e-4, 1e-3)
HEADS = 1 / 12
LORA_RANK = 8
PROBE, AUTO = "linear probe", "auto"
FAR = Rung("far")


@dataclass(frozen=True)
class Method:
    """A row of the table: a rung, and what trains where that is no rung's choice; `fitted` heads begin as a probe."""

    name: str
    rung: Rung
    prepare: Prepare | None = None
    fitted: bool = False


def _lora(model: nn.Module, _: Iterable[Batch], __: PrimingSettings) -> dict[str, nn.Parameter]:
    """Put adapters beside query and value (Hu et al. 2021, arXiv 2106.09685); they and the head train."""
    try:
        import peft
    except ImportError as error:
        raise SystemExit("LoRA needs the package peft: pip install peft") from error
    slots = architecture_of(model).attention
    targets = [f"{slots.attention}.{slots.inputs[place]}" for place in (0, 2)]
    settings = peft.LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=targets, lora_dropout=0.0)
    peft.inject_adapter_in_model(settings, model)
    return _only(model, lambda name: "lora_" in name)


def _bitfit(model: nn.Module, _: Iterable[Batch], __: PrimingSettings) -> dict[str, nn.Parameter]:
    """Let biases and the head train alone (Ben Zaken et al. 2021, arXiv 2106.10199)."""
    return _only(model, lambda name: name.endswith(".bias"))


def _only(model: nn.Module, chosen: Callable[[str], bool]) -> dict[str, nn.Parameter]:
    head = {id(parameter) for parameter in last_linear(model).parameters()}
    found = {}
    for name, parameter in model.named_parameters():
        learns = chosen(name) or id(parameter) in head
        parameter.requires_grad_(learns)
        if learns:
            found[name] = parameter
    return found


METHODS = (
    Method(PROBE, Rung("head")),
    Method("head", Rung("head"), fitted=True),
    Method("BitFit", Rung("full", retention=1.0), _bitfit),
    Method("LoRA, rank 8", Rung("full", retention=1.0), _lora),
    Method("frozen FFN", replace(FAR, retention=0.0)),
    Method("random_10", replace(FAR, selection="random")),
    Method("magnitude_10", replace(FAR, selection="magnitude")),
    Method("FAR_10", FAR),
    Method("frozen FFN, primed", replace(FAR, retention=0.0), primed(by_lot)),
    Method("random_10, primed", FAR, primed(by_lot)),
    Method("gradient_10", FAR, primed(by_gradient)),
    Method("Fisher_10", FAR, primed(by_fisher)),
    Method("FAR_10, across", FAR, primed(by_change, across=True)),
    Method("gradient_10, across", FAR, primed(by_gradient, across=True)),
    Method("Fisher_10, across", FAR, primed(by_fisher, across=True)),
    Method("FAR_40", replace(FAR, retention=0.4)),
    Method("FAR_10, heads", FAR.by_heads(HEADS)),
    Method("top-1", Rung("top-1")),
    Method("top-2", Rung("top-2")),
    Method("top-2, random nodes", Rung("top-2", selection="random")),
    Method("top-2, heads", Rung("top-2").by_heads(HEADS)),
    Method("top-3", Rung("top-3")),
    Method(AUTO, FAR),
    Method("full", Rung("full", retention=1.0)),
)
