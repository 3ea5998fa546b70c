"""Brings the forward graph into the one form that the later passes and gradient rules expect.

1. Activations [batch, sequence, hidden] become matrices [batch*sequence, hidden]: operators that work on rows
   (LayerNormalization, GELU, Dropout, Add ...) do not notice, and every linear layer becomes one Gemm with its
   bias. Learners keep torch's layout [out, in], frozen weights are [in, out].
2. Attention products become com.microsoft FusedMatMul, with the scale and the transposition of the keys inside.
3. Taking the first token becomes the operator edge_far.FirstToken; a mean over tokens, weights [batch, 1, sequence]
   times token vectors, stays a batched product, and a sum of weighed tokens becomes one.
4. The GELU by a hyperbolic tangent becomes the operator edge_far.TanhGelu (what holds of the exact one, passes read off
   the operator Gelu), and x * sigmoid(x) becomes edge_far.Silu. What turns queries and keys by their positions becomes
   edge_far.Rotary, with tables of all positions, and the shift of DeBERTa's distances edge_far.Shifted.
5. What remains three-dimensional (embedding look-ups) is flattened once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import INTERNAL, Builder, constant_of
from edge_far.compile.graph.edits import insert_before, produced_by, remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import BATCH, SEQUENCE, TOKENS, Dim, dims_of
from edge_far.errors import Unavailable

__all__ = ["canonicalise"]

ROW_WISE = {"LayerNormalization", "Gelu", "TanhGelu", "Silu", "Relu", "Tanh", "Erf", "Dropout"} | {
    "Add",
    "Mul",
    "Sub",
    "Div",
}


def canonicalise(model: ir.Model) -> PassNote:
    """Apply rules 1 to 5 in place; raises Unavailable for a form that no supported model has."""
    note = PassNote("canonicalise")
    for node in list(model.graph):
        _name_composite(model.graph, node, note)
    _TokenRows(model.graph, note).run()
    remove_dead_nodes(model)
    return note


def _name_composite(graph: ir.Graph, node: ir.Node, note: PassNote) -> None:
    """Apply rule 4 to a node."""
    if node.op_type == "Gelu" and _is_tanh_gelu(node):
        node.op_type, node.domain = "TanhGelu", INTERNAL
        node.attributes.clear()
        note.changed("GELUs by a hyperbolic tangent")
    elif node.op_type == "Mul" and (source := _silu_of(node)) is not None:
        node.op_type, node.domain = "Silu", INTERNAL
        node.replace_input_with(0, source)
        node.resize_inputs(1)
        note.changed("SiLUs")
    elif node.op_type == "Concat" and (rotated := _rotation_of(node)) is not None:
        source, cosines, sines = rotated
        b = Builder(graph, "rotary")
        tables = [b.constant(table, f"rotary.{name}") for name, table in (("cosines", cosines), ("sines", sines))]
        turned = b.op("Rotary", [source, *tables], dims_of(node.outputs[0]), domain=INTERNAL)
        insert_before(graph, node, b.nodes)
        replace_value(node.outputs[0], turned)
        note.changed("rotations by position")
    elif node.op_type == "GatherElements" and (source := _shift_of(node)) is not None:
        b = Builder(graph, "shifted")
        shifted = b.op("Shifted", [source], dims_of(node.outputs[0]), domain=INTERNAL)
        insert_before(graph, node, b.nodes)
        replace_value(node.outputs[0], shifted)
        note.changed("shifts of distances")


def _silu_of(node: ir.Node) -> ir.Value | None:
    """Return x of x * sigmoid(x), or None."""
    for value, other in (node.inputs, reversed(node.inputs)):
        sigmoid = produced_by(other, "Sigmoid")
        if sigmoid is not None and sigmoid.inputs[0] is value:
            return value
    return None


def _shift_of(node: ir.Node) -> ir.Value | None:
    """Return x [B, A, S, 2 S] of the look-up of models/exchanged/disentangled.py, from place S - i of row i on."""
    dims, source = dims_of(node.outputs[0]), node.inputs[0]
    known = source is not None and dims[2:] == (SEQUENCE,) * 2 and dims_of(source) == (*dims[:3], f"2*{SEQUENCE}")
    return source if known else None


def _rotation_of(node: ir.Node) -> tuple[ir.Value, np.ndarray, np.ndarray] | None:
    """Return x and the tables [positions, half] of (l cos - h sin, h cos + l sin), with l and h the halves of x."""
    below, above = (produced_by(node.inputs[number], name) for number, name in enumerate(("Sub", "Add")))
    factors = [produced_by(value, "Mul") for side in (below, above) if side is not None for value in side.inputs]
    if len(factors) != 4 or None in factors:
        return None
    (low, cosine), (high, sine) = ((mul.inputs[0], mul.inputs[1]) for mul in factors[:2] if mul is not None)
    crossed = [(mul.inputs[0], mul.inputs[1]) for mul in factors[2:] if mul is not None]
    halves = produced_by(low, "Split")
    if crossed != [(high, cosine), (low, sine)] or halves is None or tuple(halves.outputs) != (low, high):
        return None
    tables = [_table_behind(value) for value in (cosine, sine)]
    source = halves.inputs[0]
    if source is None or tables[0] is None or tables[1] is None:
        return None
    return source, tables[0], tables[1]


def _table_behind(value: ir.Value | None) -> np.ndarray | None:
    """Return the table whose first rows a value holds: Unsqueeze(Gather(table, [0, 1, 2, ...]))."""
    unsqueeze = produced_by(value, "Unsqueeze")
    gather = produced_by(unsqueeze.inputs[0], "Gather") if unsqueeze is not None else None
    places = produced_by(gather.inputs[1], "Slice") if gather is not None else None
    numbers = constant_of(places.inputs[0]) if places is not None else None
    if gather is None or numbers is None or not np.array_equal(numbers, np.arange(len(numbers))):
        return None
    return constant_of(gather.inputs[0])


def _is_tanh_gelu(node: ir.Node) -> bool:
    """Say whether a Gelu is the approximation by a hyperbolic tangent."""
    return "approximate" in node.attributes and node.attributes["approximate"].as_string() == "tanh"


def _is_tokens(value: ir.Value) -> bool:
    dims = dims_of(value) if value.shape is not None else ()
    return len(dims) == 3 and dims[0] == BATCH and dims[1] == SEQUENCE and value.dtype == ir.DataType.FLOAT


class _TokenRows:
    """One walk over the graph; `rows` maps a value of the old form to its matrix of token rows."""

    def __init__(self, graph: ir.Graph, note: PassNote) -> None:
        self.graph = graph
        self.note = note
        self.rows: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        for node in list(self.graph):
            builder = Builder(self.graph, "rows")
            result = self._convert(node, builder)
            insert_before(self.graph, node, builder.nodes)
            if result is None:
                continue
            if result.name is not None and _is_tokens(node.outputs[0]):
                self.rows[node.outputs[0]] = result
            else:
                replace_value(node.outputs[0], result)
        self._restore_outputs()

    def _restore_outputs(self) -> None:
        """Give an output of the graph that became a matrix its three dimensions back: a prefix's hidden states."""
        for output in [value for value in self.graph.outputs if value in self.rows]:
            builder = Builder(self.graph, "output")
            shaped = builder.reshape_to(self.rows[output], dims_of(output))
            self.graph.extend(builder.nodes)
            replace_value(output, shaped)

    def _convert(self, node: ir.Node, b: Builder) -> ir.Value | None:
        output = node.outputs[0]
        if node.op_type in ("MatMul", "Gemm"):
            return self._product(node, b)
        if node.op_type in ROW_WISE and _is_tokens(output):
            return self._row_wise(node, b)
        if node.op_type == "Reshape":
            return self._reshape(node, b)
        if node.op_type == "Gather" and node.inputs[0] in self.rows:
            return self._first_token(node, b)
        if node.op_type in ("Mul", "Div") and len(dims_of(output)) == 4:
            return self._scale(node)
        if node.op_type == "LayerNormalization" and len(dims_of(output)) == 2:
            return self._normalised(node, list(node.inputs), dims_of(output), b)
        if node.op_type == "ReduceSum" and node.inputs[0] in self.rows:
            return self._sum_of_tokens(node, b)
        return None

    def _rows(self, value: ir.Value, b: Builder) -> ir.Value:
        if value not in self.rows:
            self.rows[value] = b.reshape_to(value, (TOKENS, dims_of(value)[-1]))
            self.note.changed("tensors flattened")
        return self.rows[value]

    def _product(self, node: ir.Node, b: Builder) -> ir.Value | None:
        left, right = node.inputs[0], node.inputs[1]
        assert left is not None and right is not None
        if len(dims_of(left)) == 4:
            return self._attention_product(left, right, b)
        if right in self.rows and dims_of(left)[1:] == (1, SEQUENCE):
            self.note.changed("means over tokens")
            return b.matmul(left, b.reshape_to(self.rows[right], dims_of(right)))
        if node.op_type == "Gemm" and (matrix := constant_of(right)) is not None and _transposes(node):
            # Frozen matrices of a product of no tokens: [in, out], as all others.
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            return b.gemm(left, b.constant(np.ascontiguousarray(matrix.T), f"{right.name}.transposed"), bias)
        if node.op_type == "Gemm" or not _is_tokens(left):
            return None
        producer = right.producer()
        transposed = producer is not None and producer.op_type == "Transpose"
        weight = producer.inputs[0] if producer is not None and transposed else right
        assert weight is not None
        self.note.changed("linear layers as Gemm")
        return b.gemm(self._rows(left, b), weight, trans_right=transposed)

    def _sum_of_tokens(self, node: ir.Node, b: Builder) -> ir.Value | None:
        """ReduceSum(tokens * weights [batch, sequence, 1], 1) -> weights [batch, 1, sequence] times tokens."""
        product = produced_by(node.inputs[0], "Mul")
        axes = constant_of(node.inputs[1])
        tokens, weights = product.inputs if product is not None else (None, None)
        if tokens not in self.rows or weights is None or dims_of(weights)[1:] != (SEQUENCE, 1) or axes != [1]:
            raise Unavailable("tokens are added up in a way that is not known", where=f"node {node.name}")
        self.note.changed("sums over tokens")
        total = b.matmul(b.transpose(weights, (0, 2, 1)), b.reshape_to(self.rows[tokens], dims_of(tokens)))
        return b.reshape_to(total, (BATCH, dims_of(tokens)[-1]))

    def _attention_product(self, left: ir.Value, right: ir.Value, b: Builder) -> ir.Value:
        """Transpose(k, [0, 2, 3, 1]) -> Transpose(k, [0, 2, 1, 3]) and a transposing product."""
        producer = right.producer()
        if producer is not None and producer.op_type == "Transpose":
            perm = tuple(producer.attributes["perm"].as_ints())
            source = producer.inputs[0]
            assert source is not None
            if perm == (0, 2, 3, 1):
                self.note.changed("key transpositions fused")
                return b.matmul(left, b.transpose(source, (0, 2, 1, 3)), trans_right=True)
        return b.matmul(left, right)

    def _row_wise(self, node: ir.Node, b: Builder) -> ir.Value | None:
        if node.op_type == "Add" and (fused := self._bias(node)) is not None:
            return fused
        inputs = list(node.inputs)
        for index, value in enumerate(inputs):
            if value is None:
                continue
            if _is_tokens(value):
                inputs[index] = self._rows(value, b)
            elif len(dims_of(value)) > 1:
                return None  # broadcast over the batch: positions, before the first flattening
        shape = (TOKENS, dims_of(node.outputs[0])[-1])
        if node.op_type == "LayerNormalization":
            return self._normalised(node, inputs, shape, b)
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        return b.op(node.op_type, inputs, shape, domain=node.domain, **attributes)

    def _normalised(self, node: ir.Node, inputs: list[ir.Value | None], shape: tuple[Dim, ...], b: Builder) -> ir.Value:
        """Return a LayerNormalization of rows that gives its statistics too, which the backward pass reads."""
        attributes = {name: attribute.value for name, attribute in node.attributes.items()} | {"axis": -1}
        outputs = [(dims, ir.DataType.FLOAT) for dims in (shape, (shape[0], 1), (shape[0], 1))]
        return b.multi(node.op_type, inputs, outputs, **attributes)[0]

    def _bias(self, node: ir.Node) -> ir.Value | None:
        """Add(Gemm(x, w), bias) -> Gemm(x, w, bias)."""
        product = next(
            (self.rows[v] for v in node.inputs if v is not None and v in self.rows and _bare_gemm(self.rows[v])),
            None,
        )
        bias = next((v for v in node.inputs if v is not None and len(dims_of(v)) == 1), None)
        if product is None or bias is None:
            return None
        gemm = product.producer()
        assert gemm is not None
        gemm.resize_inputs(3)
        gemm.replace_input_with(2, bias)
        if bias.producer() is not None:
            raise Unavailable(f"the bias {bias.name!r} of a linear layer is computed", where=f"node {gemm.name}")
        return product

    def _scale(self, node: ir.Node) -> ir.Value | None:
        """Mul(FusedMatMul(q, k), scale) -> FusedMatMul(q, k, alpha=scale); Div alike."""
        divided = node.op_type == "Div"
        for value, other in (node.inputs,) if divided else (node.inputs, reversed(node.inputs)):
            scale = constant_of(other)
            producer = value.producer() if value is not None else None
            if scale is not None and scale.size == 1 and producer is not None and producer.op_type == "FusedMatMul":
                factor = 1.0 / float(scale.reshape(())) if divided else float(scale.reshape(()))
                alpha = factor * producer.attributes["alpha"].as_float()
                producer.attributes["alpha"] = ir.AttrFloat32("alpha", alpha)
                self.note.changed("attention scales fused")
                return value
        return None

    def _reshape(self, node: ir.Node, b: Builder) -> ir.Value | None:
        source, output = node.inputs[0], node.outputs[0]
        assert source is not None
        if source in self.rows and len(dims_of(output)) == 4:
            return b.reshape_to(self.rows[source], dims_of(output))
        if len(dims_of(source)) == 3 and len(dims_of(output)) == 2 and dims_of(source)[1] == 1:
            return b.reshape_to(source, dims_of(output))
        if len(dims_of(source)) == 4 and _is_tokens(output):
            return b.reshape_to(source, (TOKENS, dims_of(output)[-1]))
        return None

    def _first_token(self, node: ir.Node, b: Builder) -> ir.Value | None:
        source, index = node.inputs[0], constant_of(node.inputs[1])
        assert source is not None
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        if index is None or index.size != 1 or int(index.reshape(())) != 0 or axis != 1:
            raise Unavailable("the model's head reads tokens other than the first", where=f"node {node.name}")
        self.note.changed("first-token selections")
        return b.op("FirstToken", [self.rows[source]], (BATCH, dims_of(source)[-1]), domain=INTERNAL)


def _transposes(node: ir.Node) -> bool:
    return "transB" in node.attributes and bool(node.attributes["transB"].as_int())


def _bare_gemm(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Gemm" and len(producer.inputs) == 2
