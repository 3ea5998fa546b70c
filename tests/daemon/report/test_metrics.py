"""Metrics in Prometheus' text format, read back by an independent reader, written in one step."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from edge_far.daemon.report.metrics import CATALOGUE, Metric, exposition, write_metrics
from edge_far.errors import StorageError

METRICS = [
    Metric("examples", 12),
    Metric("cycles_total", 3, {"outcome": "released"}),
    Metric("temperature_celsius", 41.25),
    Metric("cycles_total", 1, {"outcome": 'odd "name"\\\n'}),
    Metric("training_seconds", float("nan")),
]


def read_back(text: str) -> dict[str, float]:
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            matched = re.fullmatch(r'(\w+(?:\{\w+="(?:[^"\\]|\\["\\n])*"\})?) (\S+)', line)
            assert matched, line
            found[matched[1]] = float(matched[2])
    return found


def test_format() -> None:
    text = exposition(METRICS)
    assert text.splitlines()[:5] == [
        "# HELP edge_far_examples Labelled examples in the store.",
        "# TYPE edge_far_examples gauge",
        "edge_far_examples 12",
        "# HELP edge_far_cycles_total Finished cycles by outcome.",
        "# TYPE edge_far_cycles_total counter",
    ]
    found = read_back(text)
    assert len(found) == len(METRICS) and found["edge_far_temperature_celsius"] == 41.25
    assert found[r'edge_far_cycles_total{outcome="odd \"name\"\\\n"}'] == 1
    assert text.count("# TYPE edge_far_cycles_total") == 1


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a-b", "a\nb", "unheard_of"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="not a metric's name"):
        exposition([Metric(name, 1)])
    with pytest.raises(ValueError, match="not a metric's name"):
        exposition([Metric("examples", 1, {f"{name}-": "x"})])


def test_catalogue_follows_the_conventions() -> None:
    for name, (kind, help_text) in CATALOGUE.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name) and help_text.endswith(".")
        assert name.endswith("_total") == (kind == "counter")


def test_dashboard_shows_only_what_exists() -> None:
    dashboard = Path(__file__).parents[3] / "deploy" / "grafana-dashboard.json"
    named = set(re.findall(r"edge_far_([a-z_]+)", json.dumps(json.loads(dashboard.read_text()))))
    assert named == set(CATALOGUE)


def test_file_is_replaced_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "edge_far.prom"
    write_metrics(path, METRICS)
    write_metrics(path, METRICS[:1])
    assert read_back(path.read_text()) == {"edge_far_examples": 12}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 and len(list(path.parent.iterdir())) == 1


def test_unwritable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_metrics(tmp_path / "file" / "x.prom", METRICS)
