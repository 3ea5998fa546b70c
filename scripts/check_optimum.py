"""Load a merged model of every tiny bundle with optimum's ORTModels, and compare its logits with torch's.

    .venv-device/bin/python scripts/check_optimum.py --optimum ENVIRONMENT/bin/python

ENVIRONMENT has torch and optimum-onnx[onnxruntime], which want another transformers than ours: it is no part of
`make test`. Needs build/test-bundles (scripts/make_tiny_bundles.py). Prints how many there were and the worst
difference; exit 1 where one is above 1e-4.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import open_bundle
from edge_far.device.release_files import write_release
from tests.tiny_cases import BUNDLES, CASES, Oracle

TOLERANCE = 1e-4
CLASSES = {"tag": "ORTModelForTokenClassification", "answer": "ORTModelForCustomTasks"}
CLASS = "ORTModelForSequenceClassification"
READER = """
import json, sys
from pathlib import Path
import numpy as np, optimum.onnxruntime, torch
from transformers import AutoTokenizer
worst = {}
for directory in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    with np.load(directory.with_suffix(".npz")) as arrays:
        inputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "logits"}
        wanted = arrays["logits"]
    kind = directory.with_suffix(".class").read_text()
    model = getattr(optimum.onnxruntime, kind).from_pretrained(directory)
    AutoTokenizer.from_pretrained(directory)
    logits = np.asarray(model(**inputs)["logits"])
    if logits.ndim == 3:
        read = inputs["attention_mask"].bool().numpy()
        logits, wanted = logits[read], wanted[read]
    worst[directory.name] = float(np.abs(logits - wanted).max())
print(json.dumps(worst))
"""


def main() -> int:
    """Write the models here, read them there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimum", type=Path, required=True, metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for case in CASES:
            bundle, oracle = open_bundle(BUNDLES / case.name), Oracle(BUNDLES / f"{case.name}.oracle.npz")
            write_release(bundle, read_arrays(bundle.path("learners.safetensors")), folder / case.name)
            inputs = oracle.batch(1).model_inputs(token_types=bundle.manifest.portable.token_types)
            np.savez(folder / f"{case.name}.npz", logits=oracle.logits(1), **inputs)
            (folder / f"{case.name}.class").write_text(CLASSES.get(case.task, CLASS))
        done = subprocess.run([options.optimum, "-c", READER, folder], stdout=subprocess.PIPE, text=True, check=True)
    worst = json.loads(done.stdout.splitlines()[-1])
    name = max(worst, key=worst.__getitem__)
    print(f"{len(worst)} models; worst difference of logits {worst[name]:.1e} ({name})")
    return 0 if worst[name] <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
