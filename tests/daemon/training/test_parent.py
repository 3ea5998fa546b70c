"""The parent process stays small: no NumPy, no ONNX Runtime, under 40 MiB."""

from __future__ import annotations

import re
import subprocess
import sys

CODE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"edge_far.{name}")
from edge_far.profile.document import load_profile
load_profile("rpi-zero2w-512")
print([name for name in ("numpy", "onnxruntime", "torch", "psutil", "tokenizers") if name in sys.modules])
print(open("/proc/self/status").read())
"""
MODULES = [
    "daemon.context",
    "daemon.cycle",
    "daemon.notes",
    "daemon.notify",
    "daemon.release_files",
    "daemon.releases",
    "daemon.service",
    "daemon.state",
    "daemon.gate.health",
    "daemon.gate.paired",
    "daemon.gate.questions",
    "daemon.intake.host_samples",
    "daemon.intake.ingest",
    "daemon.intake.records",
    "daemon.intake.spool",
    "daemon.report.measures",
    "daemon.report.metrics",
    "daemon.report.status",
    "daemon.report.status_text",
    "daemon.store.examples",
    "daemon.store.journal",
    "daemon.store.retention",
    "daemon.training.candidate",
    "daemon.training.conditions",
    "daemon.training.interruptions",
    "daemon.training.material",
    "daemon.training.overseer",
    "daemon.training.phase",
    "daemon.children.supervisor",
    "device.board.sensors",
]


def test_imports_and_memory() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, *MODULES], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[]")
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak and int(peak[1]) < 40 * 1024
