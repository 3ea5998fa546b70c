"""Which rows a table has."""

from __future__ import annotations

import pytest

from edge_far.bench.cases import ENGINES, Method, cases_for, method_named
from edge_far.errors import UsageError


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("full", Method("full", 1.0)),
        ("frozen-ffn", Method("frozen-ffn", 0.0)),
        ("far", Method("far-25", 0.25)),
        ("far-10", Method("far-10", 0.1)),
        ("far-2.5", Method("far-2.5", 0.025)),
    ],
)
def test_methods_have_names(name: str, found: Method) -> None:
    assert method_named(name, 0.25) == found


@pytest.mark.parametrize("name", ["far-0", "far-100", "far-x", "far-nan", "10", "FULL", ""])
def test_unknown_methods_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown method"):
        method_named(name, 0.1)


def test_full_fine_tuning_trains_and_freezes_embeddings() -> None:
    methods = [method_named(name, 0.1) for name in ("full", "far")]
    titles = [case.title for case in cases_for(ENGINES, methods, ["int8", "fp32-compact"], "frozen")]
    assert titles == [
        "torch full sdpa embeddings trained",
        "torch full eager embeddings trained",
        "torch full sdpa",
        "torch full eager",
        "torch far-10 sdpa",
        "torch far-10 eager",
        "ort-training full fp32",
        "ort-training far-10 fp32",
        "edge-far full fp32 embeddings trained",
        "edge-far full fp32",
        "edge-far full fp32-compact embeddings trained",
        "edge-far full fp32-compact",
        "edge-far far-10 int8",
        "edge-far far-10 fp32-compact",
    ]


def test_a_row_appears_once_however_often_it_is_asked_for() -> None:
    twice = [method_named(name, 0.1) for name in ("far", "far-10")]
    assert len(cases_for(["edge-far"], twice, ["int8"], "train")) == 1
