"""benchmarks/quality/many.py: every method of every line is run once, in the file of benchmarks.quality.run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.other_tasks import relabelled

pytestmark = pytest.mark.host

many = pytest.importorskip("benchmarks.quality.many", reason="needs torch", exc_type=ImportError)


def test_processes_are_dealt_by_the_costs() -> None:
    assert many.dealt([6.0, 2.0, 0.0], 4) == [0, 0, 0, 1]
    assert many.dealt([1.0], 2) == [0, 0]


def test_a_plan_is_run_and_failures_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.tiny_models import make_examples, make_tiny, make_tokenizer

    make_tiny("bert").save_pretrained(tmp_path / "model")
    make_tokenizer("bert").save(str(tmp_path / "model" / "tokenizer.json"))
    for data in ("one", "two"):
        for name, count in (("train", 24), ("test", 8)):
            path = tmp_path / data / f"{name}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(json.dumps(each) + "\n" for each in make_examples(count, seed=count)))
            relabelled(path, path, "regress")
    line = f"--model {tmp_path / 'model'} --seeds 0 --rates 1e-3 --threads 1 --methods 'linear probe' head"
    # The tiny model has two blocks: top-3 cannot be.
    lines = [f"{line} --data {tmp_path / 'one'}", f"{line} top-3 --data {tmp_path / 'two'}"]
    (tmp_path / "plan").write_text("\n".join(["# a remark", *lines]))
    out = tmp_path / "out.jsonl"
    monkeypatch.setattr(sys, "argv", ["many", "--plan", str(tmp_path / "plan"), "--out", str(out), "--processes", "2"])
    assert many.main() == 1
    runs = [json.loads(text) for text in out.read_text().splitlines()]
    assert sorted((run["data"], run["method"]) for run in runs) == [
        (data, method) for data in ("one", "two") for method in ("head", "linear probe")
    ]
    told = capfd.readouterr().err
    assert "1 methods failed, 0 of 2 processes died" in told and "the model has 2 blocks, not 3" in told
