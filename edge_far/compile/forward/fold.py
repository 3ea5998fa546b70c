"""Computes at export time everything that depends on frozen parameters alone.

1. Every node whose inputs are all constants becomes a constant (transposed frozen weights, mask constants). A
   LayerNormalization without a bias gets one of zeros: then all have the same form. Of equal lists of whole numbers one
   stays.
2. Position indices, which depend on the sequence length only, become a slice of a constant row; so does what else
   counts the tokens, or twice as many (Range).
3. Where all embedding tables are frozen, the position and type tables become one table of their sums, which
   saves a gather and an addition over all tokens.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxscript.optimizer

from edge_far.compile.graph.builder import Builder, constant_of
from edge_far.compile.graph.edits import insert_before, only_user, remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import SEQUENCE, dims_of

__all__ = ["fold_constants", "fold_embeddings"]

UNLIMITED = 1 << 40


def fold_constants(model: ir.Model) -> PassNote:
    """Evaluate every node that depends on constants alone, and simplify shapes (onnxscript's optimizer)."""
    note = PassNote("fold_constants")
    before = model.graph.num_nodes()
    _fold_norms(model.graph)
    onnxscript.optimizer.optimize(model, input_size_limit=UNLIMITED, output_size_limit=UNLIMITED)
    note.changed("nodes folded", before - model.graph.num_nodes())
    for node in model.graph:
        if node.op_type == "LayerNormalization" and len(node.inputs) == 2 and node.inputs[1] is not None:
            (width,) = dims_of(node.inputs[1])
            node.resize_inputs(3)
            zeros = np.zeros(int(width), np.float32)
            node.replace_input_with(2, Builder(model.graph, "norm").constant(zeros, f"zeros.{width}"))
            note.changed("biases of zeros")
    _join_equal_lists(model.graph)
    return note


def _fold_norms(graph: ir.Graph) -> None:
    """Evaluate normalisations of constants, which the optimizer leaves for their several outputs."""
    for node in [node for node in graph if node.op_type == "LayerNormalization"]:
        arrays = [constant_of(value) for value in node.inputs]
        if any(array is None for array in arrays) or any(value.uses() for value in node.outputs[1:]):
            continue
        inputs = [f"input.{number}" for number in range(len(arrays))]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        alone = onnx.helper.make_node("LayerNormalization", inputs, ["normal"], **attributes)
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                [alone],
                "norm",
                [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inputs],
                [onnx.helper.make_tensor_value_info("normal", onnx.TensorProto.FLOAT, None)],
            ),
            opset_imports=[onnx.helper.make_opsetid("", graph.opset_imports[""])],
        )
        (normal,) = onnx.reference.ReferenceEvaluator(model).run(None, dict(zip(inputs, arrays, strict=True)))
        constant = Builder(graph, "norm").constant(np.asarray(normal, np.float32), f"{node.outputs[0].name}.constant")
        replace_value(node.outputs[0], constant)
        graph.remove(node, safe=True)


def _join_equal_lists(graph: ir.Graph) -> None:
    known: dict[bytes, ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        array = constant_of(value)
        if array is None or array.dtype != np.int64 or array.ndim != 1 or value.is_graph_output():
            continue
        first = known.setdefault(array.tobytes(), value)
        if first is not value:
            replace_value(value, first)
            del graph.initializers[name]


def fold_embeddings(model: ir.Model, max_positions: int) -> PassNote:
    """Apply rules 2 and 3; `max_positions` is the longest sequence the position table allows."""
    note = PassNote("fold_embeddings")
    graph = model.graph
    for node in [node for node in graph if node.op_type == "Gather"]:
        index = node.inputs[1]
        if index is not None and len(dims_of(index)) == 2 and _depends_on_length_only(index):
            _slice_positions(graph, node, max_positions)
            note.changed("position look-ups sliced")
    remove_dead_nodes(model)
    for node in [node for node in graph if node.op_type == "Reshape" and node.inputs[0] is not None]:
        if len(dims_of(node.inputs[0])) == len(dims_of(node.outputs[0])) == 1:
            replace_value(node.outputs[0], node.inputs[0])
    _slice_ranges(graph, max_positions, note)
    remove_dead_nodes(model)
    words = [node for node in graph if node.op_type == "Gather" and _root_name(node) == "input_ids"]
    if len(words) != 1:
        note.refuse(f"sum of tables: expected one word look-up, found {len(words)}")
        return note
    _sum_tables(graph, words[0], max_positions, note)
    remove_dead_nodes(model)
    return note


def _root_name(gather: ir.Node) -> str | None:
    return gather.inputs[1].name if gather.inputs[1] is not None else None


def _depends_on_length_only(value: ir.Value) -> bool:
    """Say whether a computed index reads nothing of the graph's inputs but their shape."""
    seen_shape = False
    stack = [value]
    while stack:
        producer = stack.pop().producer()
        if producer is None:
            continue
        if producer.op_type == "Shape":
            seen_shape = True
            continue
        for source in producer.inputs:
            if source is None or source.const_value is not None:
                continue
            if source.producer() is None:
                return False
            stack.append(source)
    return seen_shape


def _slice_positions(graph: ir.Graph, gather: ir.Node, max_positions: int) -> None:
    """Gather(table, f(length)) -> Gather(table, row[:, :length]), or a slice of the gathered table if frozen."""
    index = gather.inputs[1]
    assert index is not None
    row = _evaluate_index(graph, index, max_positions)
    builder = Builder(graph, "positions")
    length = builder.input_shape(1, 2)
    table = constant_of(gather.inputs[0])
    width = dims_of(gather.outputs[0])[-1]
    if table is not None:
        source = builder.constant(table[row], "position_rows")
        positions = builder.op("Slice", [source, *_slice_arguments(builder, length)], (1, SEQUENCE, width))
    else:
        source = builder.constant(row, "position_indices")
        rows = builder.op("Slice", [source, *_slice_arguments(builder, length)], (1, SEQUENCE), dtype=ir.DataType.INT64)
        positions = builder.op("Gather", [gather.inputs[0], rows], (1, SEQUENCE, width), axis=0)
    insert_before(graph, gather, builder.nodes)
    replace_value(gather.outputs[0], positions)
    graph.remove(gather, safe=True)


def _slice_ranges(graph: ir.Graph, max_positions: int, note: PassNote) -> None:
    """Range(0, length, 1) -> [0, 1, 2, ...][:length], and twice the length alike."""
    for node in [node for node in graph if node.op_type == "Range"]:
        start, _, step = (constant_of(value) for value in node.inputs)
        if start is None or step is None or start != 0 or step != 1 or not _depends_on_length_only(node.outputs[0]):
            continue
        dims = dims_of(node.outputs[0])
        if dims not in ((SEQUENCE,), (f"2*{SEQUENCE}",)):
            continue
        builder = Builder(graph, "range")
        length, longest = builder.input_shape(1, 2), max_positions
        if dims != (SEQUENCE,):
            length, longest = builder.add(length, length), 2 * max_positions
        numbers = builder.constant(np.arange(longest, dtype=np.int64), f"places.{longest}")
        row = builder.op("Slice", [numbers, *_slice_arguments(builder, length, axis=0)], dims, dtype=ir.DataType.INT64)
        insert_before(graph, node, builder.nodes)
        replace_value(node.outputs[0], row)
        graph.remove(node, safe=True)
        note.changed("ranges sliced")


def _slice_arguments(builder: Builder, length: ir.Value, axis: int = 1) -> list[ir.Value]:
    start = builder.constant(np.array([0], np.int64), "slice.start")
    return [start, length, builder.constant(np.array([axis], np.int64), "slice.axis")]


def _evaluate_index(graph: ir.Graph, index: ir.Value, max_positions: int) -> np.ndarray:
    """Return the index row [1, max_positions] by running its little sub-graph on a full-length input."""
    needed: set[ir.Node] = set()
    stack = [index]
    while stack:
        producer = stack.pop().producer()
        if producer is not None and producer not in needed:
            needed.add(producer)
            stack.extend(source for source in producer.inputs if source is not None)
    nodes = [ir.serde.serialize_node(node) for node in graph if node in needed]
    constants = {
        source.name: array
        for node in needed
        for source in node.inputs
        if source is not None and (array := constant_of(source)) is not None
    }
    inputs = [value for value in graph.inputs if value.name in ("input_ids", "attention_mask", "token_type_ids")]
    extracted = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            "index",
            [onnx.helper.make_tensor_value_info(str(v.name), onnx.TensorProto.INT64, [None, None]) for v in inputs],
            [onnx.helper.make_tensor_value_info(str(index.name), onnx.TensorProto.INT64, None)],
            [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", graph.opset_imports[""])],
    )
    ones = np.ones((1, max_positions), np.int64)
    (row,) = onnx.reference.ReferenceEvaluator(extracted).run(None, {str(v.name): ones for v in inputs})
    return np.asarray(row, np.int64).reshape(1, -1)


def _sum_tables(graph: ir.Graph, words: ir.Node, max_positions: int, note: PassNote) -> None:
    """Words + types + positions -> words + one look-up in the table of sums."""
    total = only_user(words.outputs[0])
    addends: list[ir.Value] = []
    last = total
    while total is not None and total.op_type == "Add":
        addends.extend(
            v for v in total.inputs if v is not None and not (v.producer() and v.producer().op_type == "Add")
        )
        last, total = total, only_user(total.outputs[0])
    others = [value for value in addends if value is not words.outputs[0]]
    positions = next((v for v in others if _is_position_rows(v)), None)
    types = next((v for v in others if v.producer() is not None and v.producer().op_type == "Gather"), None)
    if positions is None or types is None or len(others) != 2:
        note.refuse("sum of position and type tables: this model adds no frozen pair of them")
        return
    type_gather, slice_node = types.producer(), positions.producer()
    assert type_gather is not None and slice_node is not None and last is not None
    type_table, position_table = constant_of(type_gather.inputs[0]), constant_of(slice_node.inputs[0])
    if type_table is None or position_table is None or constant_of(words.inputs[0]) is None:
        note.refuse("sum of position and type tables: embeddings are trained")
        return
    builder = Builder(graph, "embeddings")
    hidden = position_table.shape[-1]
    table = (type_table[:, None, :] + position_table[0][None]).reshape(-1, hidden)
    offsets = np.arange(max_positions, dtype=np.int64)[None]
    row = builder.op(
        "Slice",
        [
            builder.constant(offsets, "position_offsets"),
            *_slice_arguments(builder, builder.input_shape(1, 2)),
        ],
        (1, SEQUENCE),
        dtype=ir.DataType.INT64,
    )
    kinds = type_gather.inputs[1]
    assert kinds is not None
    stride = builder.constant(np.array(max_positions, np.int64), "position_stride")
    code = builder.add(builder.mul(kinds, stride), row)
    sums = builder.constant(table.astype(np.float32), "position_and_type_rows")
    looked_up = builder.op("Gather", [sums, code], dims_of(words.outputs[0]), axis=0)
    result = builder.add(words.outputs[0], looked_up)
    insert_before(graph, last, builder.nodes)
    replace_value(last.outputs[0], result)
    note.changed("type and position tables summed")


def _is_position_rows(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Slice" and constant_of(producer.inputs[0]) is not None
