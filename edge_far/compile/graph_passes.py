"""The order of the compiler's passes: from a reconfigured torch model to the three portable graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import CommonSubexpressionEliminationPass

from edge_far.compile.balance_activations import balance_activations
from edge_far.compile.canonicalise import canonicalise
from edge_far.compile.dropout import DropoutMask, bind_dropout_masks, remove_dropout
from edge_far.compile.first_token import compute_first_token_only
from edge_far.compile.fold import fold_constants, fold_embeddings
from edge_far.compile.forward import export_forward
from edge_far.compile.fuse_additions import fuse_additions
from edge_far.compile.fuse_attention import drop_unused_weights, fuse_attention
from edge_far.compile.gradients import add_gradients, add_loss
from edge_far.compile.lower import lower_internal_operators
from edge_far.compile.notes import PassNote
from edge_far.compile.quantize import quantize_frozen_products, quantize_frozen_tables
from edge_far.compile.rematerialise import rematerialise_blocks
from edge_far.compile.scale_gradient_rows import scale_gradient_rows
from edge_far.compile.stash_gelu import stash_gelu_derivatives
from edge_far.compile.stash_layer_norm import normalise_from_outputs

__all__ = ["CompileOptions", "PortableGraphs", "build_portable_graphs", "build_release_graph"]


@dataclass(frozen=True)
class CompileOptions:
    """What the passes may do; `frozen_precision` is int8 or fp32, `max_positions` the longest sequence."""

    frozen_precision: str
    dropout: bool
    max_positions: int
    first_token_only: bool = True


@dataclass
class PortableGraphs:
    """The result: a training step, an inference graph, the folded forward graph, and what each pass did.

    `step_remat` is the same step with blocks recomputed, where that saves memory.
    """

    step: ir.Model
    infer: ir.Model
    folded: ir.Model
    masks: list[DropoutMask] = field(default_factory=list)
    notes: list[PassNote] = field(default_factory=list)
    step_remat: ir.Model | None = None

    @property
    def steps(self) -> dict[str, ir.Model]:
        """Return the variants of the step by the name of their file."""
        leaner = {} if self.step_remat is None else {"step-remat": self.step_remat}
        return {"step": self.step, **leaner}


def build_portable_graphs(
    model: torch.nn.Module, architecture: str, learners: Sequence[str], options: CompileOptions
) -> PortableGraphs:
    """Compile a reconfigured model; `learners` names the trained parameters."""
    forward = export_forward(model, architecture, learners)
    notes = [fold_constants(forward), fold_embeddings(forward, options.max_positions)]
    graphs = PortableGraphs(step=forward, infer=forward, folded=_copy(forward), notes=notes)
    notes.append(canonicalise(forward))
    if options.first_token_only:
        notes.append(compute_first_token_only(forward))
    graphs.infer = _copy(forward)
    parameters = {name: value.detach().cpu().numpy() for name, value in model.named_parameters()}
    _finish(graphs.infer, [remove_dropout(graphs.infer), fuse_attention(graphs.infer)], parameters, options)
    if options.dropout:
        note, graphs.masks = bind_dropout_masks(forward)
        notes.append(note)
    else:
        notes.append(remove_dropout(forward))
    notes.append(fuse_attention(forward))
    (logits,) = forward.graph.outputs
    notes.append(add_gradients(forward, logits, add_loss(forward), learners))
    if options.frozen_precision == "int8":
        notes += _compact_backward(forward, parameters)
    _finish(forward, notes, parameters, options)
    leaner = _copy(forward)
    notes.append(rematerialise_blocks(leaner))
    if notes[-1].changes:
        # ONNX Runtime keeps an output that nothing reads to the end of the run.
        notes.append(drop_unused_weights(leaner))
        graphs.step_remat = leaner
    return graphs


def build_release_graph(original: torch.nn.Module, architecture: str) -> ir.Model:
    """Return the plain inference graph of a model in its original architecture, its parameters unfolded.

    Every parameter is an initializer under its torch name, so that its bytes can be replaced on the device.
    """
    values = dict(original.named_parameters())
    release = export_forward(original, architecture, list(values))
    fold_constants(release)
    remove_dropout(release)
    graph = release.graph
    for value in [value for value in graph.inputs if value.name in values]:
        graph.inputs.remove(value)
        name = str(value.name)
        value.const_value = ir.tensor(values[name].detach().cpu().numpy(), name=name)
        graph.initializers[name] = value
    return release


def _compact_backward(step: ir.Model, parameters: Mapping[str, np.ndarray]) -> list[PassNote]:
    """Apply the passes that trade a rounding error for memory; the exact plan (fp32) goes without."""
    return [normalise_from_outputs(step, parameters), stash_gelu_derivatives(step), scale_gradient_rows(step)]


def _finish(
    model: ir.Model, notes: list[PassNote], parameters: Mapping[str, np.ndarray], options: CompileOptions
) -> None:
    if options.frozen_precision == "int8":
        notes.append(balance_activations(model, parameters))
        notes += [quantize_frozen_products(model), quantize_frozen_tables(model)]
    notes += [lower_internal_operators(model), drop_unused_weights(model), fuse_additions(model)]
    before = model.graph.num_nodes()
    CommonSubexpressionEliminationPass()(model)
    note = PassNote("eliminate_common_subexpressions")
    note.changed("nodes removed", before - model.graph.num_nodes())
    notes.append(note)
    model.graph.opset_imports["com.microsoft"] = 1


def _copy(model: ir.Model) -> ir.Model:
    clone = model.clone()
    clone.graph.meta.update(model.graph.meta)
    return clone
