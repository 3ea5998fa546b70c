"""Run every operator case on this processor with stock ONNX Runtime (device environment: onnxruntime, numpy).

    python operator_run.py CASES RESULTS

Each case runs twice, with its constants packed by ONNX Runtime and as they are, because the two take
different kernels. RESULTS gets one STEM.PACKING.npz a run and status.jsonl. A case that was begun and never
ended (an illegal instruction kills the process) is found there, so the same command, called again, goes on
after it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # edge_far, which says so everywhere else, is not used here
import onnxruntime

PACKINGS = {"packed": "0", "mapped": "1"}  # -> session.disable_prepacking


def run_case(model: Path, inputs: dict[str, np.ndarray], packing: str, in_place: str | None) -> list[np.ndarray]:
    """All outputs of one model; `in_place` names the input whose memory the first output is bound to."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", PACKINGS[packing])
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    if in_place is None:
        return list(session.run(None, inputs))
    # The arrays are returned, not OrtValue.numpy(): that is a view which does not keep its OrtValue alive.
    arrays = {name: value.copy() for name, value in inputs.items()}
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output(session.get_outputs()[0].name, values[in_place])
    session.run_with_iobinding(binding)
    return [arrays[in_place]]


def main() -> None:
    cases, results = Path(sys.argv[1]), Path(sys.argv[2])
    results.mkdir(parents=True, exist_ok=True)
    status_path = results / "status.jsonl"
    lines = status_path.read_text().splitlines() if status_path.exists() else []
    begun = {json.loads(line)["run"] for line in lines}
    with status_path.open("a") as status:

        def note(run: str, state: str, message: str = "") -> None:
            status.write(json.dumps({"run": run, "state": state, "message": message}) + "\n")
            status.flush()

        for case in json.loads((cases / "cases.json").read_text()):
            for packing in PACKINGS:
                run = f"{case['stem']}.{packing}"
                if run in begun:
                    continue
                note(run, "begun")
                with np.load(cases / f"{case['stem']}.npz") as arrays:
                    inputs = {name: arrays[name] for name in arrays.files if name != "expected"}
                try:
                    outputs = run_case(cases / f"{case['stem']}.onnx", inputs, packing, case["in_place"])
                except Exception as error:  # whatever ONNX Runtime raises is the finding
                    note(run, "failed", str(error).splitlines()[0])
                    continue
                np.savez(results / f"{run}.npz", *outputs)
                note(run, "ran")
    print(f"{platform.machine()}, onnxruntime {onnxruntime.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
