"""The reports of scripts/test_aarch64.sh must fail when a processor differs, crashed or stopped early."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.tiny_cases import CASES

HERE = Path(__file__).parent


def run_script(name: str, *arguments: object) -> tuple[int, str]:
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def write_runs(runs: Path, fp32: list[float], int8: list[float]) -> Path:
    for bundle, losses in (("tiny-fp32", fp32), ("tiny-int8", int8)):
        (runs / bundle).mkdir(parents=True)
        events: list[dict[str, object]] = [{"event": "start"}]
        events += [{"event": "step", "step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
        (runs / bundle / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return runs


def test_loss_report_judges_fp32_and_states_int8(tmp_path: Path) -> None:
    reference = write_runs(tmp_path / "x86", [2.0, 1.9, 1.8], [2.0, 1.9, 1.8])
    near = write_runs(tmp_path / "near", [2.0, 1.90005, 1.8], [2.0, 1.9, 1.5])
    code, output = run_script("loss_report.py", f"x86={reference}", f"a={near}")
    assert (code, "5.0e-05" in output, "3.0e-01" in output) == (0, True, True), output
    far = write_runs(tmp_path / "far", [2.0, 1.9002, 1.8], [2.0, 1.9, 1.8])
    code, output = run_script("loss_report.py", f"x86={reference}", f"a={near}", f"b={far}")
    assert (code, "2.0e-04 TOO FAR" in output) == (1, True), output


def test_loss_report_fails_on_a_run_that_stopped_early(tmp_path: Path) -> None:
    reference = write_runs(tmp_path / "x86", [2.0, 1.9, 1.8], [2.0, 1.9, 1.8])
    short = write_runs(tmp_path / "short", [2.0, 1.9], [2.0, float("nan"), 1.8])
    code, output = run_script("loss_report.py", f"x86={reference}", f"a={short}")
    assert (code, output.count("FAILED")) == (1, 2), output
    code, output = run_script("loss_report.py", f"x86={tmp_path / 'none'}", f"a={tmp_path / 'none'}")
    assert (code, output.count("FAILED: none")) == (1, 2), output


def test_operator_report_names_crashes_and_differences(tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    names = ("Equal", "Differs", "Crashes")
    entries = [{"name": name, "stem": name, "tolerance": 1e-5, "in_place": None} for name in names]
    (cases / "cases.json").write_text(json.dumps(entries))
    for folder in ("x86", "board"):
        (tmp_path / folder).mkdir()
    for name in names:
        np.savez(cases / f"{name}.npz", expected=np.array([1.0, 2.0]))
        for packing in ("packed", "mapped"):
            np.savez(tmp_path / "x86" / f"{name}.{packing}.npz", np.array([1.0, 2.0], np.float32))
            if name != "Crashes":
                second = 2.0 if name == "Equal" or packing == "packed" else 2.1
                np.savez(tmp_path / "board" / f"{name}.{packing}.npz", np.array([1.0, second], np.float32))
    begun = {"run": "Crashes.packed", "state": "begun", "message": ""}
    (tmp_path / "board" / "status.jsonl").write_text(json.dumps(begun) + "\n")
    code, output = run_script("operator_report.py", cases, tmp_path / "x86", f"board={tmp_path / 'board'}")
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines()[1:]}
    assert code == 1, output
    assert rows == {
        "Equal": ["0", "0"],
        "Differs": ["0", "1.0e-01", "TOO", "FAR"],
        "Crashes": ["0", "CRASHED"],
    }


def test_doctor_report_judges_core_user_land_and_packages(tmp_path: Path) -> None:
    findings = {
        "board": "no name, cortex-a53, 4 cores",
        "user land": "64-bit (aarch64)",
        "instructions": "no 8-bit dot product, no 16-bit floats",
        **dict.fromkeys(("python", "onnxruntime", "packages", "memory limit"), "as it should be"),
    }

    def told(core: str, *, bad: tuple[str, ...] = (), **changes: str) -> tuple[int, str]:
        rows = [
            {"name": name, "read": read, "verdict": "bad" if name in bad else "ok"}
            for name, read in {**findings, **changes}.items()
        ]
        path = tmp_path / "doctor.json"
        path.write_text(json.dumps({"findings": rows}))
        return run_script("doctor_report.py", f"{core}={path}")

    missing = ("instructions",)  # a core without a dot product
    assert told("cortex-a53", bad=missing) == (0, "cortex-a53   as it should be\n")
    assert told("cortex-a72", bad=missing) == (1, "cortex-a72   board: no name, cortex-a53, 4 cores\n")
    assert told("cortex-a53")[0] == 1  # a dot product is seen where there is none
    assert told("cortex-a53", bad=(*missing, "packages")) == (1, "cortex-a53   packages: as it should be\n")
    assert told("cortex-a76", board="no name, cortex-a76", instructions="8-bit dot product")[0] == 0
    assert run_script("doctor_report.py", f"cortex-a53={tmp_path / 'none.json'}")[0] == 1


def test_gradient_report_judges_fp32_and_names_what_did_not_run(tmp_path: Path) -> None:
    """Bundles of tests/tiny_cases.py: fp32 against torch, the others stated; one crashed, one never ran, one is far."""
    names = [case.name for case in CASES]
    far, crashed, never = "bert-r10-2", "roberta-r10-2", "bert-head-5"
    arrays = {"0.w": np.array([1.0, 2.0], np.float32)}
    for folder in ("x86", "good", "bad"):
        (tmp_path / folder).mkdir()
        lines = []
        for name in names:
            np.savez(tmp_path / folder / f"{name}.npz", allow_pickle=False, **arrays)
            worst = 2e-5 if (folder, name) == ("bad", far) else 0.3 if name == "bert-r40-5-int8" else 1e-6
            state = {"state": "begun"} if (folder, name) == ("bad", crashed) else {"state": "done", "worst": worst}
            if (folder, name) != ("bad", never):
                lines.append(json.dumps({"case": name, **state}) + "\n")
        (tmp_path / folder / "status.jsonl").write_text("".join(lines))

    def report(*folders: str) -> tuple[int, dict[str, str]]:
        told = [f"{name}={tmp_path / name}" for name in folders]
        command = [sys.executable, "-m", "tests.aarch64.gradient_report", *told]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])
        rows = done.stdout.splitlines()[1:]
        return done.returncode, dict(zip(names, rows, strict=True))

    code, rows = report("x86", "good")
    assert code == 0 and "3.0e-01" in rows["bert-r40-5-int8"] and "1.0e-06 (0.0e+00)" in rows[far]
    code, rows = report("x86", "bad")
    assert code == 1 and "2.0e-05 TOO FAR" in rows[far] and "CRASHED" in rows[crashed] and "not run" in rows[never]
