"""The demo's table, and the claims that make `make demo` fail."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "demo_table.py"
CHOSEN = {"rung": "top-2", "pooling": "mean", "below_best": 0.0041, "below_best_error": 0.005, "job_work": 0.2781}
DOCUMENTS: dict[str, Any] = {
    "data": {"baseline": {"test_accuracy": 0.75}},
    "export": {"model_parameters": 1000, "priming_steps": 50, "choice": {"chosen": CHOSEN, "rows": [CHOSEN] * 5}},
    "before": {"accuracy": 0.4},
    "train": {
        "trained_parameters": 195,
        "steps": 3,
        "peak_rss_mib": 229.4,
        "budget_mib": 300.0,
        "plan": {"batch_size": 16},
    },
    "after": {"accuracy": 0.9, "examples": 768},
    "predict": {"predictions": [{"label": "light_on", "probability": 0.987, "text": "lights"}]},
}


@pytest.fixture(name="table")
def _table(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("demo_table", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NOT_ON_A_DEVICE", ("a_package_that_is_nowhere",))
    return module


def test_rows_hold_share_median_and_accuracies(table: Any) -> None:
    rows = {what: (value, remark) for what, value, remark in table.table_rows(DOCUMENTS, 0.1234)}
    assert rows["rung of the ladder"] == (
        "top-2",
        "mean pooling; 0.004 +- 0.005 below the best in Matthews' correlation",
    )
    assert rows["work of a run"][0] == "0.278"
    assert rows["trained parameters"] == ("195", "19.5% of 1,000")
    assert rows["step time"][0] == "0.123 s"
    assert rows["peak memory"] == ("229 MiB", "VmHWM of training; budget 300 MiB")
    assert [rows[f"accuracy{name}"][0] for name in (", bag of words", " before", " after")] == [
        "75.0%",
        "40.0%",
        "90.0%",
    ]


def test_step_time_is_the_median_of_the_log_s_steps(table: Any, tmp_path: Path) -> None:
    events = [{"event": "start"}, *({"event": "step", "seconds": value} for value in (0.1, 9.0, 0.2)), {"event": "end"}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert table.step_seconds(tmp_path / "log.jsonl") == 0.2


@pytest.mark.parametrize(
    ("document", "key", "value", "said"),
    [
        ("train", "peak_rss_mib", 300.1, "above its budget"),
        ("after", "accuracy", 0.799, "above that of the bag of words"),
        ("before", "accuracy", 0.9, "did not improve"),
    ],
)
def test_a_broken_claim_is_said(table: Any, document: str, key: str, value: float, said: str) -> None:
    assert table.check_claims(DOCUMENTS) == []
    documents = copy.deepcopy(DOCUMENTS)
    documents[document][key] = value
    assert [said in failure for failure in table.check_claims(documents)] == [True]


def test_torch_in_the_training_environment_is_a_failure(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "NOT_ON_A_DEVICE", ("json",))
    assert table.check_claims(DOCUMENTS) == ["the environment that trained holds json"]


def test_the_script_exits_with_1(tmp_path: Path) -> None:
    documents = copy.deepcopy(DOCUMENTS)
    documents["train"]["peak_rss_mib"] = 301.0
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"event": "step", "seconds": 1.0}\n')
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "light_on" in done.stdout and "above its budget of 300.0 MiB" in done.stderr
