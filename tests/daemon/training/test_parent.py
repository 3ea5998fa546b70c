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
    *(
        "conditions",
        "health",
        "ingest",
        "interruptions",
        "metrics",
        "notify",
        "paired",
        "records",
        "releases",
        "retention",
    ),
    *("candidate", "context", "cycle", "journal", "measures", "notes", "overseer", "service", "state", "status"),
    *("spool", "status_text", "store", "supervisor"),
]


def test_imports_and_memory() -> None:
    names = [*(f"daemon.{name}" for name in MODULES), "device.sensors"]
    done = subprocess.run([sys.executable, "-c", CODE, *names], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[]")
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak and int(peak[1]) < 40 * 1024
