"""Writes compiled graphs and what the device must know of them into a bundle directory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from edge_far.bundles.manifest import GraphInfo, Mask, Parameter, Portable, Prefix
from edge_far.compile.emit.costs import graph_costs, polynomial
from edge_far.compile.emit.probe import build_probe
from edge_far.compile.emit.release_graphs import lower_opset, smaller_releases
from edge_far.compile.forward.cut import HIDDEN
from edge_far.compile.graph.sizes import Size, dims_of
from edge_far.compile.graph.weights import WeightFile
from edge_far.compile.graph_passes import PortableGraphs
from edge_far.compile.memory.liveness import activation_peaks
from edge_far.compile.memory.packing import packing
from edge_far.storage import write_json

__all__ = ["emit_portable"]

LATEST_IR = 10  # that the oldest ONNX Runtime of a device reads
# How the device keeps hidden states, by the precision of the frozen weights; pooled vectors are kept exactly.
CACHES = {"int8": "int8", "int8-weights": "int8", "fp32-compact": "fp16", "fp32": "fp32"}


def emit_portable(
    directory: Path,
    graphs: PortableGraphs,
    release: ir.Model,
    layout: Mapping[str, Any],
    learners: Mapping[str, np.ndarray],
    *,
    token_types: bool,
    frozen_precision: str,
) -> Portable:
    """Write the graphs, release.json, constants.json and weights.bin; return their description.

    `layout` is far.reconfigure.original_layout of the model; `learners` are the trained parameters' values.
    """
    directory.mkdir()
    lower_opset(release)
    ClearMetadataAndDocStringPass()(release)
    precisions = smaller_releases(release, layout["parameters"].keys(), directory)
    weights = WeightFile(directory / "weights.bin")
    regions = {}
    for name, value in release.graph.initializers.items():
        if name not in layout["parameters"]:
            continue
        assert value.const_value is not None
        region = weights.add_unshared(value.const_value.numpy())
        weights.refer(name, value, region)
        regions[name] = {
            "offset": region.offset,
            "length": region.length,
            "shape": [int(d) for d in value.shape or ()],
        }
    trained = {**graphs.steps, "infer": graphs.infer}
    if graphs.prefix is not None:
        trained["prefix"] = graphs.prefix
    probe, probed = build_probe(trained.values())
    trained["probe"] = probe
    constants = {name: weights.externalise(model.graph) for name, model in trained.items()}
    weights.close()
    write_json(directory / "constants.json", constants)
    for name, model in {**trained, "release": release}.items():
        # The exporter's notes hold stack traces with this machine's paths.
        ClearMetadataAndDocStringPass()(model)
        model.ir_version = min(model.ir_version, LATEST_IR)
        ir.save(model, directory / f"{name}.onnx")
    write_json(directory / "release.json", {"regions": regions, "layout": layout, "precisions": precisions})
    prefix = None
    if graphs.prefix is not None:
        prefix = _prefix(graphs.prefix, directory, constants["prefix"], frozen_precision)
    return Portable(
        token_types=token_types,
        frozen_precision=frozen_precision,
        # Weight decay applies to matrices; not to biases and LayerNorms, as in BERT's own training.
        parameters=tuple(Parameter(name, array.shape, array.ndim > 1) for name, array in learners.items()),
        masks=tuple(Mask(mask.name, mask.shape, mask.probability, mask.factors) for mask in graphs.masks),
        steps=tuple(_describe(name, model.graph) for name, model in graphs.steps.items()),
        infer=_describe("infer", graphs.infer.graph),
        probe=probed,
        step_constant_bytes=_constant_bytes(graphs.step, embeddings=False),
        infer_constant_bytes=_constant_bytes(graphs.infer, embeddings=False),
        embedding_bytes=_constant_bytes(graphs.step, embeddings=True),
        prefix=prefix,
    )


def _prefix(model: ir.Model, directory: Path, constants: Mapping[str, Any], frozen_precision: str) -> Prefix:
    dims = dims_of(model.graph.outputs[0])
    assert isinstance(dims[-1], int)
    return Prefix(
        graph=_describe("prefix", model.graph),
        sha256=_fingerprint(directory, constants),
        cache="fp32" if len(dims) == 2 else CACHES[frozen_precision],
        width=dims[-1],
        pooled=len(dims) == 2,
        constant_bytes=_constant_bytes(model, embeddings=False),
        embedding_bytes=_constant_bytes(model, embeddings=True),
        by_rows=frozen_precision == "int8" and not _knows_neighbours(model.graph),
    )


def _knows_neighbours(graph: ir.Graph) -> bool:
    """Say whether a row's numbers may depend on the others: one scale for all, or a product in float32.

    Kernels of float32 round otherwise for one row than for several.
    """
    return any(node.op_type == "Gemm" or node.op_type.startswith("DynamicQuantize") for node in graph)


def _fingerprint(directory: Path, constants: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the prefix's graph and of the bytes of its constants, wherever in the file they lie."""
    digest = hashlib.sha256((directory / "prefix.onnx").read_bytes())
    with (directory / "weights.bin").open("rb") as file:
        for name, region in sorted(constants.items()):
            digest.update(f"\0{name}\0{region['dtype']}{region['shape']}\0".encode())
            file.seek(region["offset"])
            digest.update(file.read(region["length"]))
    return digest.hexdigest()


def _describe(name: str, graph: ir.Graph) -> GraphInfo:
    # Hidden states lie outside of the arena, twice: as they are read, and as the floats that a graph begins with.
    hidden = [Size.of(dims_of(value), 8.0) for value in graph.inputs if value.name == HIDDEN]
    peaks = tuple(polynomial(sum(hidden, size)) for size in activation_peaks(graph))
    return GraphInfo(name, peaks, packing(graph), graph_costs(graph))


def _constant_bytes(model: ir.Model, *, embeddings: bool) -> int:
    """Count the external constants that look-ups read (a few rows at a time), or all others."""
    total = 0
    for value in model.graph.initializers.values():
        looked_up = any(user.op_type == "Gather" and index == 0 for user, index in value.uses())
        if looked_up == embeddings and isinstance(value.const_value, ir.ExternalTensor):
            total += value.const_value.nbytes
    return total
