"""The order of the compiler's passes: from a reconfigured torch model to the three portable graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import CommonSubexpressionEliminationPass

from edge_far.compile.forward.canonicalise import canonicalise
from edge_far.compile.forward.cut import cut_forward
from edge_far.compile.forward.dropout import DropoutMask, bind_dropout_masks, remove_dropout
from edge_far.compile.forward.first_token import compute_first_token_only
from edge_far.compile.forward.fold import fold_constants, fold_embeddings
from edge_far.compile.forward.fuse_attention import drop_unused_weights, fuse_attention
from edge_far.compile.forward.largest_inputs import by_constants, largest_inputs
from edge_far.compile.forward.sort_nodes import sort_nodes
from edge_far.compile.forward.trace import export_forward
from edge_far.compile.gradient.fuse_additions import fuse_additions
from edge_far.compile.gradient.fuse_normalised_sums import fuse_normalised_sums
from edge_far.compile.gradient.losses import add_loss
from edge_far.compile.gradient.lower import lower_internal_operators
from edge_far.compile.gradient.reverse_mode import add_gradients
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.memory.recompute_cheap_values import recompute_cheap_values
from edge_far.compile.memory.rematerialise import rematerialise_blocks
from edge_far.compile.memory.stash_in_16_bits import stash_in_16_bits
from edge_far.compile.precision.balance_activations import balance_activations
from edge_far.compile.precision.quantize import quantize_frozen_products, quantize_frozen_tables, store_frozen_weights
from edge_far.compile.precision.scale_gradient_rows import scale_gradient_rows
from edge_far.compile.precision.stash_gates import stash_gates
from edge_far.compile.precision.stash_gelu import stash_gelu_derivatives
from edge_far.compile.precision.stash_layer_norm import normalise_from_outputs
from edge_far.texts.batches import Batch

__all__ = ["CompileOptions", "PortableGraphs", "build_portable_graphs", "build_release_graph"]


@dataclass(frozen=True)
class CompileOptions:
    """What the passes may do; `max_positions` is the longest sequence.

    `frozen_precision` says how non-learners are stored and multiplied: int8; int8-weights (8-bit storage, fp32
    products); fp32-compact (fp32, with 8-bit stashes for the backward pass); fp32 (exact). `cut_before` holds the paths
    of the modules with which learning begins, where all before them is to become a prefix of its own;
    `loss` names the task's.
    """

    frozen_precision: str
    dropout: bool
    max_positions: int
    first_token_only: bool = True
    fused_attention: bool = True
    cut_before: tuple[str, ...] = ()
    loss: str = "softmax"

    @property
    def stashes_in_8_bits(self) -> bool:
        """Say whether the backward pass may read rounded stashes."""
        return self.frozen_precision != "fp32"


@dataclass
class PortableGraphs:
    """The result: a training step, an inference graph, the folded forward graph, and what each pass did.

    `leaner` holds the same step in less memory, by the name of its file, where there is something to save. With a cut,
    `prefix` computes the hidden states that all the others begin with.
    """

    step: ir.Model
    infer: ir.Model
    folded: ir.Model
    prefix: ir.Model | None = None
    masks: list[DropoutMask] = field(default_factory=list)
    notes: list[PassNote] = field(default_factory=list)
    leaner: dict[str, ir.Model] = field(default_factory=dict)

    @property
    def steps(self) -> dict[str, ir.Model]:
        """Return the variants of the step by the name of their file."""
        return {"step": self.step, **self.leaner}


def build_portable_graphs(
    model: torch.nn.Module,
    architecture: str,
    learners: Sequence[str],
    options: CompileOptions,
    sample: Iterable[Batch] = (),
) -> PortableGraphs:
    """Compile a reconfigured model; `learners` names the trained parameters.

    `sample` holds a few batches of what the model will read; int8 chooses scales by what they show (largest_inputs.py).
    """
    forward = export_forward(model, architecture, learners)
    prefix = cut_forward(forward, options.cut_before) if options.cut_before else None
    parameters = {name: value.detach().cpu().numpy() for name, value in model.named_parameters()}
    seen = largest_inputs(model, sample, learners) if options.frozen_precision == "int8" else {}
    notes: list[PassNote] = []
    if prefix is not None:
        notes += [fold_constants(prefix), fold_embeddings(prefix, options.max_positions)]
        largest = _canonical(prefix, notes, parameters, seen, options)
        _finish(prefix, [remove_dropout(prefix)], parameters, largest, options, by_rows=True)
    notes += [fold_constants(forward), fold_embeddings(forward, options.max_positions)]
    graphs = PortableGraphs(step=forward, infer=forward, folded=_copy(forward), prefix=prefix, notes=notes)
    largest = _canonical(forward, notes, parameters, seen, options)
    graphs.infer = _copy(forward)
    _finish(graphs.infer, [remove_dropout(graphs.infer)], parameters, largest, options)
    if options.dropout:
        note, graphs.masks = bind_dropout_masks(forward)
        notes.append(note)
    else:
        notes.append(remove_dropout(forward))
    if options.fused_attention:
        notes.append(fuse_attention(forward, learners))
    (logits,) = forward.graph.outputs
    notes.append(add_gradients(forward, logits, add_loss(forward, options.loss), learners))
    if options.stashes_in_8_bits:
        notes += [normalise_from_outputs(forward, parameters), stash_gelu_derivatives(forward), stash_gates(forward)]
    if options.frozen_precision == "int8":
        notes.append(scale_gradient_rows(forward))
    _finish(forward, notes, parameters, largest, options)
    lean = [recompute_cheap_values, *([stash_in_16_bits] if options.stashes_in_8_bits else [])]
    for name, passes in (("step-lean", lean), ("step-remat", [rematerialise_blocks])):
        leaner = _copy(forward)
        made = [run(leaner) for run in passes]
        notes += made
        if any(note.changes for note in made):
            # ONNX Runtime keeps an output that nothing reads to the end of the run.
            notes.append(drop_unused_weights(leaner))
            graphs.leaner[name] = leaner
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


def _canonical(
    model: ir.Model,
    notes: list[PassNote],
    parameters: Mapping[str, np.ndarray],
    seen: Mapping[str, np.ndarray],
    options: CompileOptions,
) -> dict[str, np.ndarray]:
    """Bring a folded graph into the one form that passes expect; return what `seen` says of its constants."""
    notes.append(canonicalise(model))
    largest: dict[str, np.ndarray] = {}
    if options.frozen_precision == "int8":
        largest = by_constants(model, parameters, seen)
        note, in_order = sort_nodes(model, largest)
        largest |= in_order
        notes.append(note)
    if options.first_token_only:
        notes.append(compute_first_token_only(model))
    return largest


def _finish(
    model: ir.Model,
    notes: list[PassNote],
    parameters: Mapping[str, np.ndarray],
    largest: Mapping[str, np.ndarray],
    options: CompileOptions,
    *,
    by_rows: bool = False,
) -> None:
    """Choose precisions and operators; `by_rows` keeps a text's numbers from depending on others of its batch."""
    if options.frozen_precision == "int8":
        notes.append(balance_activations(model, parameters, largest, by_rows=by_rows))
        notes.append(quantize_frozen_products(model))
    elif options.frozen_precision == "int8-weights":
        notes.append(store_frozen_weights(model))
    if options.frozen_precision.startswith("int8"):
        notes.append(quantize_frozen_tables(model))
    notes += [lower_internal_operators(model), drop_unused_weights(model)]
    notes += [fuse_normalised_sums(model), fuse_additions(model)]
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
