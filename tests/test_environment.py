"""The device's side starts without torch, transformers and onnx, quickly, and in little memory."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import subprocess
import sys

import pytest

import edge_far.daemon
import edge_far.device
import edge_far.texts

FORBIDDEN = ("torch", "transformers", "onnx", "onnxscript", "onnx_ir")
LARGEST_START_MIB = 60
LONGEST_START_S = 0.5

REPORT = """
import json, resource, sys
usage = resource.getrusage(resource.RUSAGE_SELF)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
report = {
    "cpu_s": usage.ru_utime + usage.ru_stime,
    "peak_mib": int(status["VmHWM"].split()[0]) / 1024,
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}
print("REPORT " + json.dumps(report))
"""
HELP = """
import edge_far.cli
try:
    edge_far.cli.main(["train", "--help"])
except SystemExit as end:
    assert not end.code
"""


def measure(program: str) -> dict[str, object]:
    """Run a program in a fresh interpreter; return its CPU time, peak resident set and modules.

    The CPU time of the process, not the wall time, so that a busy machine does not fail the test.
    """
    done = subprocess.run([sys.executable, "-c", program + REPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("REPORT "))
    report: dict[str, object] = json.loads(line.removeprefix("REPORT "))
    return report


def modules_of(package) -> list[str]:
    return [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]


@pytest.mark.device
def test_the_environment_has_none_of_the_workstations_packages() -> None:
    assert [name for name in FORBIDDEN if importlib.util.find_spec(name) is not None] == []


@pytest.mark.device
@pytest.mark.parametrize(
    "name", [name for side in (edge_far.device, edge_far.daemon, edge_far.texts) for name in modules_of(side)]
)
def test_every_device_module_imports_without_them(name: str) -> None:
    importlib.import_module(name)
    assert not set(FORBIDDEN) & set(sys.modules)


@pytest.mark.device
def test_importing_the_device_side_pulls_in_none_of_them() -> None:
    names = modules_of(edge_far.device)
    report = measure("".join(f"import {name}\n" for name in names))
    assert not set(FORBIDDEN) & set(report["modules"])
    assert "onnxruntime" in report["modules"]


@pytest.mark.device
def test_start_up_is_quick_and_small() -> None:
    reports = [measure(HELP) for _ in range(3)]
    assert not set(FORBIDDEN) & set(reports[0]["modules"])
    seconds = min(report["cpu_s"] for report in reports)
    peak = min(report["peak_mib"] for report in reports)
    print(f"edge-far train --help: {seconds:.2f} s of CPU time, peak {peak:.1f} MiB")
    assert seconds < LONGEST_START_S
    assert peak < LARGEST_START_MIB
