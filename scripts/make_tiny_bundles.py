"""Build the tiny bundles of tests/tiny_cases.py, with torch's results beside each, and tiny tokenizers.

Needs the workstation's environment.

    python scripts/make_tiny_bundles.py

Does nothing when build/test-bundles is of the present sources already; otherwise replaces the folder as a whole.
"""

from __future__ import annotations

import fcntl
import gc
import itertools
import json
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_ir as ir
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.architectures.registry import architecture_named
from edge_far.bundles.bundle import Bundle
from edge_far.compile import graph_passes, pipeline
from edge_far.compile.graph_passes import build_release_graph
from edge_far.device.engine.dropout import draw_mask, factor_table, mask_shape
from edge_far.far.above_cut import mean_loss
from edge_far.far.method import cut_of
from edge_far.far.nodes import block_paths, embeddings_of
from edge_far.models.exchanged.exchange import restore_modules
from edge_far.texts.batches import Batch, collate, plan_epoch
from edge_far.texts.data import read_examples
from edge_far.texts.encode import Encoder
from tests.tiny_cases import (
    BATCH_SHAPES,
    BUNDLES,
    CASES,
    DROPOUT_BATCH,
    DROPOUT_KEY,
    STAMP_FILE,
    TRAIN_FILE,
    TRAINING_BATCH,
    TRAINING_RATE,
    TRAINING_STEPS,
    Case,
    built_from,
    sources_hash,
)
from tests.tiny_models import (
    TinyBundle,
    make_batch,
    make_examples,
    make_pooled,
    make_tiny_bundle,
    tiny_task,
    torch_logits,
)
from tests.tiny_tokenizers import save_tokenizers
from tests.tiny_traces import traced_once

WORKERS = min(2, len(os.sched_getaffinity(0)))  # one with torch takes a GiB


def main() -> int:
    """Build what is out of date; others that want to wait."""
    BUNDLES.parent.mkdir(exist_ok=True)
    with (BUNDLES.parent / "test-bundles.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = sources_hash()
        if built_from() == wanted:
            return 0
        staging = BUNDLES.with_name("test-bundles.partial")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        lines = [json.dumps(example) for example in make_examples(12)]
        (staging / TRAIN_FILE).write_text("\n".join(lines) + "\n")
        save_tokenizers(staging / "tokenizers")
        # Tracing makes millions of objects; what was imported need not be looked through each time.
        with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"), gc.freeze) as workers:
            groups = of_one_original()
            for group, _ in zip(groups, workers.map(partial(make_cases, staging), groups), strict=True):
                print(f"made {', '.join(case.name for case in group)}", file=sys.stderr, flush=True)
        (staging / STAMP_FILE).write_text(wanted + "\n")
        shutil.rmtree(BUNDLES, ignore_errors=True)
        staging.rename(BUNDLES)
    return 0


def of_one_original() -> list[list[Case]]:
    """Return the cases in groups that begin with the same model, the largest group first."""
    groups: dict[tuple[object, ...], list[Case]] = {}
    for case in CASES:
        groups.setdefault((case.architecture, case.pooling, case.labels, case.hidden, case.task), []).append(case)
    return sorted(groups.values(), key=len, reverse=True)


def make_cases(directory: Path, group: Sequence[Case]) -> None:
    """Write the cases of one original, whose release graphs torch traces once."""
    trace = traced_once({}, "the original")

    def build(original: torch.nn.Module, architecture: str) -> ir.Model:
        with mock.patch.object(graph_passes, "export_forward", trace):
            return build_release_graph(original, architecture)

    with mock.patch.object(pipeline, "build_release_graph", build):
        for case in group:
            make_case(directory, case)


def make_case(directory: Path, case: Case) -> None:
    """Write the bundle and the oracle of one case."""
    tiny = make_tiny_bundle(
        directory,
        case.architecture,
        labels=case.labels,
        retention=case.retention,
        embeddings=case.embeddings,
        dropout=case.dropout,
        precision=case.precision,
        with_ort=False,
        first_token_only=case.first_token_only,
        method=case.method,
        pooling=case.pooling,
        attention_retention=case.attention_retention,
        hidden=case.hidden,
        task=case.task,
        name=case.name,
    )
    head_class = tiny_task(case.task, case.labels).head_class
    original = make_pooled(  # same seed
        case.architecture, case.pooling, labels=case.labels, hidden=case.hidden, head_class=head_class
    )
    restore_modules(original)
    arrays = {f"parameter.{name}": value.detach().numpy() for name, value in original.named_parameters()}
    for number, (rows, length) in enumerate(BATCH_SHAPES):
        pairs = architecture_named(case.architecture).token_types == "pairs"
        batch = make_batch(rows=rows, length=length, labels=case.labels, token_types=pairs, task=case.task, seed=number)
        for field in Batch.__slots__:
            if getattr(batch, field) is not None:
                arrays[f"{number}.{field}"] = getattr(batch, field)
        with torch.no_grad():
            arrays[f"{number}.logits"] = torch_logits(original, batch).numpy()
        arrays |= run_torch(tiny, batch, str(number))
        if case.dropout and number == DROPOUT_BATCH:
            set_training(tiny, case)
            with given_dropout(tiny.bundle, batch):
                arrays |= run_torch(tiny, batch, "dropout")
            tiny.model.eval()
    if case.trains:
        arrays["training.losses"] = train_torch(tiny, directory / TRAIN_FILE)
    np.savez(directory / f"{case.name}.oracle.npz", **arrays)  # type: ignore[arg-type]


def set_training(tiny: TinyBundle, case: Case) -> None:
    """Put the model into training mode, but for what lies below the cut: there is no dropout in the prefix."""
    tiny.model.train()
    paths = block_paths(tiny.model)
    cut = cut_of(case.method, len(paths))
    if cut:
        for path in (*embeddings_of(tiny.model), *paths[:cut]):
            tiny.model.get_submodule(path).eval()


def run_torch(tiny: TinyBundle, batch: Batch, name: str) -> dict[str, np.ndarray]:
    """Return loss and gradients of a batch's mean loss by torch autograd on the reconfigured model."""
    logits = torch_logits(tiny.model, batch)
    loss = mean_loss(tiny.bundle.manifest.task.loss, logits, batch.labels)
    gradients = torch.autograd.grad(loss, list(tiny.trained.values()))
    named = zip(tiny.trained, gradients, strict=True)
    return {f"{name}.loss": np.array(loss.item())} | {f"{name}.gradient.{n}": g.numpy() for n, g in named}


def train_torch(tiny: TinyBundle, path: Path) -> np.ndarray:
    """Train by torch's AdamW, clipping and the schedule of transformers; return each step's loss before its update."""
    defaults = tiny.bundle.manifest.defaults
    names = list(tiny.bundle.manifest.labels)
    encoder = Encoder(tiny.bundle.path("tokenizer.json"), defaults.max_seq_len, token_types=False)
    encoded = encoder.encode(read_examples(path, labels=names), names)
    decay = {parameter.name: parameter.decay for parameter in tiny.bundle.manifest.portable.parameters}
    groups = [
        {"params": [tiny.trained[name] for name in tiny.trained if decay[name] == wanted], "weight_decay": amount}
        for wanted, amount in ((True, defaults.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=TRAINING_RATE)
    warmup = round(defaults.warmup_fraction * TRAINING_STEPS)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, warmup, TRAINING_STEPS)
    losses: list[float] = []
    for epoch in itertools.count():
        for indices in plan_epoch(encoded.lengths, TRAINING_BATCH, defaults.seed, epoch):
            if len(losses) == TRAINING_STEPS:
                return np.array(losses)
            batch = collate(encoded, indices)
            loss = torch.nn.functional.cross_entropy(torch_logits(tiny.model, batch), torch.tensor(batch.labels))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(tiny.trained.values()), defaults.clip_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    raise AssertionError("unreachable")


@contextmanager
def given_dropout(bundle: Bundle, batch: Batch) -> Iterator[None]:
    """Make torch's dropouts, in the order they are called, use the device's masks; all of them must be used."""
    rows, length = batch.input_ids.shape
    remaining = list(enumerate(bundle.manifest.portable.masks))

    def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if p == 0.0 or not training:
            return x
        node, mask = remaining.pop(0)
        assert math.isclose(mask.probability, p, rel_tol=1e-6), f"dropout {node}: {mask.probability}, torch {p}"
        drawn = draw_mask(mask, node, mask_shape(mask, rows, length), DROPOUT_KEY)
        factors = factor_table(p, active=True)[drawn].reshape(*drawn.shape[:-1], -1)
        return x * torch.from_numpy(spread(factors, tuple(x.shape)))

    with mock.patch("torch.nn.functional.dropout", dropout):
        yield
    assert not remaining, f"torch called {len(remaining)} dropouts fewer than the graph has"


def spread(factors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return factors of a tensor's full shape; where only first tokens were drawn, the others get 1."""
    if factors.size == np.prod(shape):
        return factors.reshape(shape)
    full = np.ones(shape, np.float32)
    if len(shape) == 3:  # [batch, sequence, hidden]: the first token's row
        full[:, 0] = factors
    else:  # [batch, heads, query, key]: the first token's query
        full[:, :, :1] = factors
    return full


if __name__ == "__main__":
    sys.exit(main())
