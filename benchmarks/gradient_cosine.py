"""How near the gradients of each precision are to the exact ones, and the time of the very bundle that gave them.

    python benchmarks/gradient_cosine.py --data clinc150/data_full.json [--model DIR] [--attention heads] [--json]

Run with the workstation's environment. Compiles all-MiniLM-L6-v2 (or DIR) with its real weights as FAR_10, learners by
magnitude and a fresh head, once a precision and once exactly (fp32); sums the learners' gradients over the same real
sentences by every step graph in the device's environment; and prints the cosine of each learner tensor's gradient to
that of the exact plan's `step`: the least with its name, and the median. Tensors whose exact gradient is shorter than
1/1000 of the gradient of all are left out and counted: those of keys' biases are zero but for rounding. Seconds are the
median forward and backward of a batch of 32. --data is CLINC150's data_full.json, its directory, or a file of examples.
Exit 1 where int8 or int8-weights misses its aim.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.bench.environments import python_or_exit
from edge_far.bundles.bundle import Bundle, open_bundle
from edge_far.device.board.memory import use_one_heap
from edge_far.device.engine.backend import Backend
from edge_far.device.engine.backends import choose_backend
from edge_far.tasks.classify import Classify
from edge_far.texts.batches import Batch, collate
from edge_far.texts.data import Example, label_names, read_examples
from edge_far.texts.encode import Encoder

EXACT = "fp32"
PRECISIONS = ("int8", "int8-weights", "fp32-compact")
AIMS = {"int8": 0.985, "int8-weights": 0.998}
RETENTION, MAX_SEQ_LEN, BATCH, REPEATS, SEED = 0.1, 64, 32, 5, 0
SMALLEST_SHARE = 1e-3
PACKAGED_MODEL = Path(__file__).resolve().parent.parent / "scripts" / "packaged_model.py"
SENTENCES = "sentences.jsonl"


def main() -> int:
    """Compile here, compare in the device's environment, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", help="default: the one that scripts/packaged_model.py finds")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--attention", choices=("full", "heads"), default="full")
    parser.add_argument("--method", default="far", help="far or top-K (default: %(default)s)")
    parser.add_argument("--sentences", type=int, default=128, help="taken at even distances from --data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    python = python_or_exit("edge-far")
    examples = read_data(options.data)
    chosen = evenly(examples, options.sentences)
    model = options.model or subprocess.check_output([sys.executable, PACKAGED_MODEL], text=True).strip()
    with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as name:
        folder = Path(name)
        lines = [json.dumps({"text": example.text, "label": example.label}) for example in chosen]
        (folder / SENTENCES).write_text("\n".join(lines) + "\n", encoding="utf-8")
        names = [EXACT, *dict.fromkeys(options.precisions)]
        compile_all(model, examples, names, folder, options.attention, options.method)
        child = [str(python), __file__, "--child", str(folder), str(options.threads), *names]
        rows = json.loads(subprocess.check_output(child))
    print(json.dumps(rows) if options.json else as_markdown(rows, len(chosen)))
    return int(not all(row["met"] for row in rows))


def read_data(path: Path) -> list[Example]:
    """Return CLINC150's in-scope training sentences, or the examples of a JSON Lines, CSV or TSV file."""
    path = path / "data_full.json" if path.is_dir() else path
    if path.suffix != ".json":
        return read_examples(path, labels=None)
    return [Example(text, label=label) for text, label in json.loads(path.read_text(encoding="utf-8"))["train"]]


def evenly(examples: Sequence[Example], count: int) -> list[Example]:
    """Return `count` examples at even distances: the file of CLINC150 is sorted by label."""
    count = min(count, len(examples))
    return [examples[number * len(examples) // count] for number in range(count)]


def compile_all(
    model: str, examples: Sequence[Example], precisions: Sequence[str], folder: Path, attention: str, method: str
) -> None:
    """Compile a bundle a precision, of the same weights, head and learners, as folder/PRECISION.

    Scales are chosen by the first batches of all examples, as `edge-far export` does it.
    """
    from edge_far.compile.export_settings import ExportSettings
    from edge_far.compile.forward.trace import takes_token_types
    from edge_far.compile.learners import sample_batches
    from edge_far.compile.pipeline import compile_bundle
    from edge_far.console import Console
    from edge_far.far.heads import attention_share
    from edge_far.far.method import cut_of, select_above_cut
    from edge_far.far.nodes import block_paths
    from edge_far.models.source import load_source
    from edge_far.profile.document import load_profile

    labels = label_names(str(example.label) for example in examples)
    source = load_source(model, labels, SEED)
    encoder = Encoder(source.tokenizer, MAX_SEQ_LEN, token_types=takes_token_types(source.architecture))
    encoded = encoder.encode(list(examples), labels)
    heads = source.model.config.num_attention_heads
    share = attention_share(None, RETENTION, heads) if attention == "heads" else None
    cut = cut_of(method, len(block_paths(source.model)))
    selection = select_above_cut(source.model, "magnitude", RETENTION, share, cut, seed=SEED)
    for precision in precisions:
        settings = ExportSettings(
            model=model,
            train=Path(),
            out=folder / precision,
            profile=load_profile("workstation"),
            selection="magnitude",
            retention=RETENTION,
            priming=0.0,
            start="reset",
            embeddings="frozen",
            frozen_precision=precision,
            max_seq_len=MAX_SEQ_LEN,
            learning_rate=None,
            epochs=1,
            batch_size=BATCH,
            dropout=False,
            seed=SEED,
            with_ort=False,
            method=method,
            attention=attention,
        )
        fresh = dataclasses.replace(source, model=copy.deepcopy(source.model))
        sample = sample_batches(encoded, settings)
        compile_bundle(fresh, Classify(labels), selection, None, settings, Console(quiet=True), sample)


def compare(folder: Path, threads: int, precisions: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each precision and step graph; the first precision's `step` is the exact plan."""
    use_one_heap()
    rows = []
    exact: dict[str, np.ndarray] = {}
    for precision in precisions:
        bundle = open_bundle(folder / precision)
        batches = _batches(bundle, folder / SENTENCES)
        make_backend, _, learners = choose_backend("portable", bundle, threads, dropout=False)
        backend = make_backend(learners, None)
        for graph in (step.name for step in bundle.manifest.portable.steps):
            found = _gradients(backend, batches, graph)
            exact = exact or found
            chosen = long_enough(exact)
            cosines = {name: cosine(exact[name], found[name]) for name in chosen}
            worst = min(cosines, key=cosines.__getitem__)
            rows.append(
                {
                    "precision": precision,
                    "graph": graph,
                    "worst": cosines[worst],
                    "worst_name": worst,
                    "median": statistics.median(cosines.values()),
                    "compared": len(chosen),
                    "left_out": sorted(set(exact) - set(chosen)),
                    "seconds": _seconds(backend, batches[0], graph),
                    "aim": AIMS.get(precision),
                    "met": cosines[worst] >= AIMS.get(precision, -1.0),
                }
            )
        backend.close()
    return rows


def long_enough(gradients: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names whose gradient's norm is at least SMALLEST_SHARE of the norm of all together."""
    norms = {name: float(np.linalg.norm(array.astype(np.float64))) for name, array in gradients.items()}
    least = SMALLEST_SHARE * float(np.linalg.norm(list(norms.values())))
    return [name for name, norm in norms.items() if norm >= least]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the angle between two arrays taken as vectors, in float64; 0 where one is zero."""
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0


def as_markdown(rows: Sequence[Mapping[str, Any]], sentences: int) -> str:
    """Return the table, and below it what was left out and which aims were missed."""
    lines = [
        "| precision | step graph | worst cosine | of | median | step, s | aim |",
        "|---|---|---:|---|---:|---:|---|",
    ]
    for row in rows:
        aim = "" if row["aim"] is None else f"{row['aim']}: {'met' if row['met'] else 'MISSED'}"
        lines.append(
            f"| {row['precision']} | {row['graph']} | {row['worst']:.5f} | {row['worst_name']} "
            f"| {row['median']:.5f} | {row['seconds']:.4f} | {aim} |"
        )
    left_out = rows[0]["left_out"]
    lines += [
        "",
        f"{sentences} sentences; {rows[0]['compared']} learner tensors compared with the exact plan's ({EXACT} step); "
        f"{len(left_out)} left out, their gradients shorter than {SMALLEST_SHARE:g} of all: {', '.join(left_out)}",
    ]
    return "\n".join(lines)


def _batches(bundle: Bundle, sentences: Path) -> list[Batch]:
    labels = list(bundle.manifest.labels)
    encoder = Encoder(bundle.path("tokenizer.json"), MAX_SEQ_LEN, token_types=bundle.manifest.portable.token_types)
    encoded = encoder.encode(read_examples(sentences, labels=labels), labels)
    order = np.arange(len(encoded))
    return [collate(encoded, order[start : start + BATCH]) for start in range(0, len(order), BATCH)]


def _gradients(backend: Backend, batches: Sequence[Batch], graph: str) -> dict[str, np.ndarray]:
    """Return the gradients of the mean loss over all batches."""
    for gradient in backend.gradients.values():
        gradient.fill(0.0)
    count = sum(len(batch.labels) for batch in batches)
    for batch in batches:
        backend.accumulate(batch, 1.0 / count, None, graph)
    return {name: gradient.copy() for name, gradient in backend.gradients.items()}


def _seconds(backend: Backend, batch: Batch, graph: str) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        backend.accumulate(batch, 1.0 / len(batch.labels), None, graph)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(compare(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
        sys.exit()
    sys.exit(main())
