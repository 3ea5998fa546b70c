"""Takes the normalised input of a LayerNormalization from its output, so that its input need not be kept.

The output y = gamma * n + beta is kept anyway, for the weight gradient of the linear layer that reads it;
n = (y - beta) / gamma costs as many passes as n = (x - mean) * rate, and saves one activation a LayerNormalization.
Rounding grows with |beta / gamma|, so this belongs to the compact plan, not to the exact one. Where an element of
gamma is nearly zero n is lost, which real models have (all-MiniLM-L6-v2: 3 of 384 in its last block): refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import INTERNAL, Builder
from edge_far.compile.graph.edits import insert_before, remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import BATCH, dims_of

__all__ = ["normalise_from_outputs"]

# Training moves a gamma by about the sum of its learning rates: far less than this in any run that converges.
SMALLEST_SAFE_GAMMA = 0.05


def normalise_from_outputs(model: ir.Model, gammas: Mapping[str, np.ndarray]) -> PassNote:
    """Rewrite LayerNormalizationGrad(dy, x, gamma, mean, rate) to read y and beta instead of x and mean.

    `gammas` holds the present values of the trained gammas by name.
    """
    note = PassNote("normalise_from_outputs")
    graph = model.graph
    forward = {node.inputs[0]: node for node in graph if node.op_type == "LayerNormalization"}
    for node in [node for node in graph if node.op_type == "LayerNormalizationGrad"]:
        dy, x, gamma, _, rate = node.inputs
        source = forward[x]
        y, beta = source.outputs[0], source.inputs[2]
        assert dy is not None and gamma is not None and rate is not None and beta is not None
        if not any(user.op_type == "Gemm" for user, _ in y.uses()):
            note.refuse(f"{y.name}: nothing else keeps this output")
            continue
        if dims_of(y)[0] == BATCH:
            note.refuse(f"{y.name}: one row an example saves nothing")
            continue
        smallest = float(np.abs(gammas[str(gamma.name)]).min())
        if smallest < SMALLEST_SAFE_GAMMA:
            note.refuse(f"{gamma.name}: an element of size {smallest:.1e} is too small to divide by")
            continue
        b = Builder(graph, "stash")
        outputs = [(dims_of(value), ir.DataType.FLOAT) for value in node.outputs]
        results = b.multi("LayerNormalizationGradFromOutput", [dy, y, gamma, beta, rate], outputs, domain=INTERNAL)
        insert_before(graph, node, b.nodes)
        for old, new in zip(node.outputs, results, strict=True):
            replace_value(old, new)
        note.changed("normalised inputs taken from outputs")
    remove_dead_nodes(model)
    return note
