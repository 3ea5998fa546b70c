"""Releases in fewer bits: what is stored is the parameter to within half a step, and the answers stay those of fp32."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.file_model import FileModel
from edge_far.device.release import original_parameters, parts_of
from edge_far.device.release_files import LARGEST_INT8, write_release
from tests.other_tasks import counted
from tests.tiny_cases import CASES, Oracle

OpenBundle = Callable[[str], Bundle]
LoadOracle = Callable[[str], Oracle]
ARCHITECTURES = {case.architecture: case.name for case in reversed(CASES)}  # the first case of each
TYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1", "int8-transposed": "i1", "scales": "<f4"}


def stored(raw: bytes, part: object, form: str) -> np.ndarray:
    """Read one tensor of a weights file."""
    offset, length = part.offset, part.length  # type: ignore[attr-defined]
    return np.frombuffer(raw[offset : offset + length], TYPES[form.removesuffix("-column")])


@pytest.mark.parametrize("name", [*ARCHITECTURES.values(), "bert-r40-tag-dropout", "bert-head-answer"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_fewer_bits_answer_as_fp32(
    name: str, precision: str, tiny_bundle: OpenBundle, oracle: LoadOracle, tmp_path: Path
) -> None:
    bundle, batch = tiny_bundle(name), oracle(name).batch(1)
    learners = read_arrays(bundle.path("learners.safetensors"))
    write_release(bundle, learners, tmp_path / "fp32")
    write_release(bundle, learners, tmp_path / "small", precision=precision)
    facts = json.loads((tmp_path / "small" / "release.json").read_bytes())
    assert (facts["precision"], facts["measured"]) == (precision, None)
    wanted, found = (counted(FileModel(tmp_path / part, 1).logits(batch), batch) for part in ("fp32", "small"))
    # Half precision keeps 11 bits, 2^-11 = 0.0005 of a weight; 8 bits 1/254 of a row's largest, twice in a product.
    spread = float(wanted.std())
    assert np.abs(found - wanted).max() <= {"fp16": 0.01, "int8": 0.15}[precision] * spread
    assert np.abs(found - wanted).max() > 0, "there is a difference"


@pytest.mark.parametrize("name", ["bert-r10-2", "mpnet-r10-5-embeddings-dropout", "distilbert-r10-5-mean"])
def test_what_is_stored_is_the_parameter_to_within_half_a_step(
    name: str, tiny_bundle: OpenBundle, tmp_path: Path
) -> None:
    bundle = tiny_bundle(name)
    learners = read_arrays(bundle.path("learners.safetensors"))
    parameters = original_parameters(bundle, learners)
    forms = set()
    for precision in ("fp16", "int8"):
        write_release(bundle, learners, tmp_path / precision, precision=precision)
        raw = (tmp_path / precision / "weights.bin").read_bytes()
        parts = parts_of(bundle, precision)
        steps = {part.parameter: stored(raw, part, "scales") for part in parts if part.form.startswith("scales")}
        for part in parts:
            forms.add(part.form)
            exact, found = parameters[part.parameter], stored(raw, part, part.form)
            if part.form == "float32":
                assert found.tobytes() == exact.tobytes()
            elif part.form == "float16":
                np.testing.assert_allclose(found.reshape(exact.shape), exact, rtol=2.0**-11, atol=2.0**-25)
            elif part.form.startswith("int8"):
                turned = part.form == "int8-transposed"
                values = found.reshape(exact.T.shape).T if turned else found.reshape(exact.shape)
                assert np.abs(values.astype(int)).max() == LARGEST_INT8
                step = steps[part.parameter][:, None]
                assert np.all(np.abs(values * step - exact) <= step * 0.50001)
    assert forms == {"float32", "float16", "int8", "int8-transposed", "scales", "scales-column"}


def test_a_row_of_zeros_and_numbers_beyond_half_precision(tmp_path: Path) -> None:
    from edge_far.device.release_files import _write_form

    array = np.array([[0, 0, 0], [1e9, -1e9, 3], [0.5, -127, 127]], np.float32)
    found = {}
    for form in TYPES:
        with (tmp_path / form).open("wb") as file:
            _write_form(file, array, form)
        found[form] = np.frombuffer((tmp_path / form).read_bytes(), TYPES[form])
    np.testing.assert_array_equal(found["float16"].reshape(3, 3), [[0, 0, 0], [65504, -65504, 3], [0.5, -127, 127]])
    np.testing.assert_array_equal(found["int8"].reshape(3, 3), [[0, 0, 0], [127, -127, 0], [0, -127, 127]])
    np.testing.assert_array_equal(found["int8-transposed"].reshape(3, 3).T, found["int8"].reshape(3, 3))
    np.testing.assert_allclose(found["scales"], [1, 1e9 / 127, 1], rtol=1e-7)


def test_a_large_matrix_is_written_in_blocks_alike(tmp_path: Path) -> None:
    from edge_far.device import release_files

    array = np.random.default_rng(0).normal(size=(1500, 400)).astype(np.float32)
    assert len(release_files._starts(array)) > 1
    for form in ("int8", "int8-transposed", "scales", "float16"):
        with (tmp_path / form).open("wb") as file:
            release_files._write_form(file, array, form)
    scales = np.abs(array).max(1) / 127
    values = np.rint(array / scales[:, None].astype(np.float32)).astype(np.int8)
    assert (tmp_path / "int8").read_bytes() == values.tobytes()
    assert (tmp_path / "int8-transposed").read_bytes() == values.T.tobytes()
    assert (tmp_path / "float16").stat().st_size == math.prod(array.shape) * 2
