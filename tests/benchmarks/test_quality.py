"""benchmarks/quality: a run a line, none twice, the best rate's in the table; every method on a tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.other_tasks import relabelled

pytestmark = pytest.mark.host

script = pytest.importorskip("benchmarks.quality.run", reason="needs torch", exc_type=ImportError)
table = pytest.importorskip("benchmarks.quality.table", exc_type=ImportError)


def line(method: str, seed: int, rate: float, valid: float, test: float) -> dict[str, Any]:
    place = {"data": "d", "model": "m", "pooling": "cls", "most": None}
    trained = {} if method == "linear probe" else {"trained": 1000}
    return (
        place | {"method": method, "seed": seed, "rate": rate, "valid": valid, "figures": {"span_f1": test}} | trained
    )


def test_the_table_has_test_figures_at_the_rate_of_the_validation_data() -> None:
    runs = [
        line("full", 0, 1e-4, 0.5, 0.9),
        line("full", 0, 3e-4, 0.6, 0.7),
        line("full", 1, 3e-4, 0.1, 0.72),
        line("linear probe", 0, 0.0, 0.1, 0.25),
    ]
    assert table.best_rate(runs[:3]) == 3e-4
    shown = table.as_table(runs).splitlines()
    assert shown[0] == "| | trained | d, span F1<br>m, cls |"
    assert shown[2:] == ["| linear probe |  | 25.00 |", "| full | 1,000 | 71.00 ± 1.41 (0.0003) |"]


def test_differences_have_the_interval_of_a_paired_t_test() -> None:
    scores = {"full": (0.90, 0.80, 0.85), "FAR_10": (0.91, 0.83, 0.90), "head": (0.5,)}
    runs = [line(name, seed, 1e-4, 0.5, value) for name, values in scores.items() for seed, value in enumerate(values)]
    runs.append(line("FAR_10", 0, 1e-3, 0.4, 0.1))  # a worse rate
    rows = table.differences(runs, "full").splitlines()[2:]
    # 1, 3 and 5 points: mean 3, deviation 2, and t of two degrees of freedom at 97.5 % is 4.3027.
    reach = 4.3027 * 2 / 3**0.5
    assert rows == [f"| d: FAR_10 | +3.00 | {3 - reach:+.2f} to {3 + reach:+.2f} | 3 |"]


def test_a_line_that_was_cut_short_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "o").write_text(json.dumps(line("full", 0, 1e-4, 0.5, 0.9)) + '\n{"data": "d", "me')
    assert len(table.read_runs(tmp_path / "o")) == 1 and table.read_runs(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("task", "methods"),
    [("tag", ["linear probe", "head", "BitFit", "top-1", "full"]), ("answer", ["linear probe", "FAR_10", "full"])],
)
def test_runs_are_resumed(
    task: str, methods: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.tiny_models import make_examples, make_tiny, make_tokenizer

    make_tiny("bert").save_pretrained(tmp_path / "model")
    make_tokenizer("bert").save(str(tmp_path / "model" / "tokenizer.json"))
    for name, count in (("train", 24), ("test", 8)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in make_examples(count, seed=count)))
        relabelled(path, path, task)
    out = tmp_path / "out.jsonl"
    arguments = ["--model", str(tmp_path / "model"), "--data", str(tmp_path), "--out", str(out), "--seeds", "0", "1"]
    monkeypatch.setattr(
        sys, "argv", ["run", *arguments, "--threads", "1", "--rates", "1e-3", "3e-3", "--methods", *methods]
    )
    assert script.main() == 0
    runs = table.read_runs(out)
    # A probe has no rate to choose; the others try two, and the better one with the second seed.
    assert [run["method"] for run in runs] == [name for name in methods for _ in range(2 + (name != methods[0]))]
    assert all(0 <= run["figures"][next(iter(run["figures"]))] <= 1 for run in runs)
    trained = {run["method"]: run.get("trained", 0) for run in runs}
    assert trained[methods[0]] == 0 and max(trained.values()) == trained["full"] > 2 * trained[methods[-2]]
    before, kept = out.read_text(), out.read_text().splitlines()
    out.write_text("\n".join(kept[:-1]) + "\n")
    assert script.main() == 0
    again = table.read_runs(out)[-1]
    assert {**again, "seconds": 0} == {**runs[-1], "seconds": 0}, "the missing run, and the same"
    assert len(before.splitlines()) == len(runs) == len(table.read_runs(out))
    assert capsys.readouterr().out.count("| full |") == 2
