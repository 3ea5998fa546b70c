"""The exported graph in two parts: what is where, and that together they compute what the whole did."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir
import torch
from onnx.reference import ReferenceEvaluator

from edge_far.compile.forward.cut import HIDDEN, cut_forward
from edge_far.compile.forward.dropout import remove_dropout
from edge_far.compile.forward.trace import export_forward
from edge_far.errors import Unavailable
from edge_far.far.method import learning_modules
from edge_far.far.nodes import block_paths
from edge_far.far.reconfigure import trained_parameters
from tests.tiny_models import ARCHITECTURES, make_batch, make_pooled, torch_logits


def inputs_of(model: ir.Model) -> dict[str, tuple[object, ...]]:
    return {str(v.name): tuple(d if isinstance(d, int) else d.value for d in v.shape or ()) for v in model.graph.inputs}


# The first three in all forms, of the others one each: an export takes seconds.
FORMS = [(name, pooling, cut) for name in ARCHITECTURES[:3] for pooling in ("cls", "mean") for cut in (1, 2)]
FORMS += [(name, ("cls", "mean")[number % 2], 1) for number, name in enumerate(ARCHITECTURES[3:])]


@pytest.mark.parametrize(("architecture", "pooling", "cut"), FORMS)
def test_the_parts_compute_what_the_whole_did(architecture: str, pooling: str, cut: int) -> None:
    model = make_pooled(architecture, pooling)
    trained = trained_parameters(model, cut=cut)
    forward = export_forward(model, architecture, list(trained))
    prefix = cut_forward(forward, learning_modules(model, cut, list(trained)))
    wide = ("batch", "sequence", 32) if cut == 1 else ("batch", 32)
    assert inputs_of(forward)[HIDDEN] == wide
    assert [str(value.name) for value in prefix.graph.outputs] == [HIDDEN]
    assert not {"input_ids", "token_type_ids"} & set(inputs_of(forward))
    assert not set(trained) & set(inputs_of(prefix)), "nothing that learns comes before the cut"
    assert set(trained) <= set(inputs_of(forward))
    below = [f"{path}." for path in block_paths(model)[:cut]]
    assert not [name for name in forward.graph.initializers if name.startswith(tuple(below))]

    batch = make_batch(rows=3, length=16)
    ids = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    ids["token_type_ids"] = np.zeros_like(batch.input_ids)
    for part in (prefix, forward):
        remove_dropout(part)
        part.opset_imports.setdefault("", 20)
    hidden = run(prefix, ids)
    parameters = {name: value.detach().numpy() for name, value in trained.items()}
    logits = run(forward, {HIDDEN: hidden, "attention_mask": batch.attention_mask, **parameters})
    with torch.no_grad():
        expected = torch_logits(model, batch).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Run a graph in onnx's own evaluator, with those of the feeds that it reads."""
    wanted = set(inputs_of(model))
    (found,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {k: v for k, v in feeds.items() if k in wanted})
    return np.asarray(found)


def test_a_border_that_is_not_there_is_refused() -> None:
    model = make_pooled("bert", "cls")
    forward = export_forward(model, "bert", ["classifier.weight", "classifier.bias"])
    with pytest.raises(Unavailable, match="was not found"):
        cut_forward(forward, ["bert.encoder.layer.7"])


def test_ids_that_learners_read_are_refused() -> None:
    """Where the embeddings are what learns first, nothing comes before them."""
    model = make_pooled("distilbert", "cls")
    trained = list(trained_parameters(model, "train"))
    forward = export_forward(model, "distilbert", trained)
    with pytest.raises(Unavailable):
        cut_forward(forward, ["distilbert.embeddings"])
