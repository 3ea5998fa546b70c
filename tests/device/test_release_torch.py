"""The released model with trained learners, against the reconfigured torch model that holds the same learners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

pytest.importorskip("torch")
import torch

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.release_files import write_release
from edge_far.far.method import cut_of, select_above_cut
from edge_far.far.nodes import find_ffn_blocks
from edge_far.far.reconfigure import reconfigure, trained_parameters
from tests.other_tasks import counted
from tests.tiny_cases import CASES, Case, Oracle
from tests.tiny_models import make_pooled, tiny_task, torch_logits

pytestmark = pytest.mark.host


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_logits_are_those_of_torch(
    case: Case, tiny_bundle: Callable[[str], Bundle], oracle: Callable[[str], Oracle], tmp_path: Path
) -> None:
    bundle, batch = tiny_bundle(case.name), oracle(case.name).batch(1)
    random = np.random.default_rng(2)
    learners = {
        name: array + random.normal(0, 0.05, array.shape).astype(np.float32)
        for name, array in read_arrays(bundle.path("learners.safetensors")).items()
    }
    head_class = tiny_task(case.task, case.labels).head_class
    model = make_pooled(case.architecture, case.pooling, labels=case.labels, hidden=case.hidden, head_class=head_class)
    cut = cut_of(case.method, len(find_ffn_blocks(model)))
    reconfigure(model, select_above_cut(model, "random", case.retention, case.attention_retention, cut, seed=0))
    parameters = trained_parameters(model, case.embeddings, cut)
    assert parameters.keys() == learners.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(learners[name]))
        expected = torch_logits(model, batch).numpy()
    write_release(bundle, learners, tmp_path / "model")
    session = ort.InferenceSession(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    feeds = {value.name: getattr(batch, value.name) for value in session.get_inputs()}
    if feeds.get("token_type_ids", ...) is None:
        feeds["token_type_ids"] = np.zeros_like(batch.input_ids)
    found = session.run(["logits"], feeds)[0]
    np.testing.assert_allclose(counted(found, batch), counted(expected, batch), rtol=0, atol=1e-5)
    assert np.abs(found - oracle(case.name).logits(1)).max() > 1e-3, "training shows"
