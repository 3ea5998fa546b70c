"""The whole of `edge-far bench`, top to bottom: which rows, their bundles, fresh processes in rounds, the document."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_far.bench.cases import Case, Method, cases_for, choose_cases, method_of
from edge_far.bench.environments import Environment, describe_machine, find_environments, missing_for_compiling
from edge_far.bench.run import Planned, run_rounds
from edge_far.bench.summary import make_ratios, make_row
from edge_far.bench.work.counts import Counts, Work, count_fill, count_step
from edge_far.bench.work.task import Task
from edge_far.bundles.bundle import Bundle, open_bundle
from edge_far.console import Console
from edge_far.device.engine.ort_training import available
from edge_far.device.optimizers.registry import DEFAULT_OPTIMIZER
from edge_far.errors import EdgeFarError, UsageError

__all__ = ["Settings", "run_bench"]

# A load average above this before the run: something else is running.
BUSY_LOAD = 0.5


@dataclass(frozen=True)
class Settings:
    """What `edge-far bench` was asked for."""

    model: str
    batch: int
    micro_batch: int
    length: int
    threads: int
    methods: tuple[Method, ...]
    engines: tuple[str, ...]
    precisions: tuple[str, ...]
    embeddings: str
    dropout: bool
    steps: int
    warmup: int
    rounds: int
    seed: int
    optimizer: str = DEFAULT_OPTIMIZER
    step_graph: str = "step"
    pooling: str = "cls"
    only: tuple[str, ...] = ()
    device_python: Path | None = None

    @property
    def is_bundle(self) -> bool:
        """Say whether a bundle is measured, and not a geometry."""
        return (Path(self.model) / "manifest.json").is_file()


@dataclass(frozen=True)
class Prepared:
    """A case's bundle, or the reason why it has none; PyTorch's cases have neither."""

    bundle: Bundle | None = None
    reason: str = ""


def run_bench(settings: Settings, console: Console) -> dict[str, Any]:
    """Measure all rows; the document's `left_out` names those that could not be, and why."""
    machine = describe_machine()
    if machine["load_average"] > BUSY_LOAD:
        console.warn(f"the machine is busy (load average {machine['load_average']}): other work distorts the figures")
    environments = find_environments(settings.device_python)
    left_out: dict[Case, str] = {}
    with _prepare(settings, environments, console) as prepared:
        planned = []
        for case, ready in prepared.items():
            python = environments[case.engine].python
            if ready.reason or python is None:
                left_out[case] = ready.reason or environments[case.engine].reason
            else:
                planned.append(Planned(case, python, _task(settings, case, ready.bundle)))
        results = run_rounds(planned, settings.rounds, console)
        left_out |= results.failed
        rows = [
            make_row(
                case,
                measured,
                settings.batch,
                _counts(settings, case, prepared[case].bundle),
                _optimizer(settings, case),
            )
            for case in prepared
            if (measured := results.measured.get(case))
        ]
    far = next((c.method.name for c in prepared if not c.method.is_rung and 0 < c.method.retention < 1), "far")
    return {
        "model": Path(settings.model).name,
        "batch": settings.batch,
        "micro_batch": settings.micro_batch,
        "length": settings.length,
        "threads": settings.threads,
        "dropout": settings.dropout,
        "pooling": settings.pooling,
        "steps": settings.steps,
        "warmup": settings.warmup,
        "rounds": settings.rounds,
        "seed": settings.seed,
        "machine": machine,
        "rows": rows,
        "ratios": make_ratios(rows, far),
        "left_out": [{"row": case.title, "reason": reason} for case, reason in left_out.items()],
    }


@contextmanager
def _prepare(
    settings: Settings, environments: Mapping[str, Environment], console: Console
) -> Iterator[dict[Case, Prepared]]:
    """Yield every case with its bundle; compiled ones live as long as the block."""
    if settings.is_bundle:
        yield _of_bundle(settings, open_bundle(Path(settings.model)))
        return
    cases = choose_cases(
        cases_for(settings.engines, settings.methods, settings.precisions, settings.embeddings), settings.only
    )
    missing = missing_for_compiling()
    with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as folder:
        bundles: dict[tuple[Method, str, str], Bundle] = {}
        prepared = {}
        for case in cases:
            if environments[case.engine].python is None:
                prepared[case] = Prepared()  # its environment says why
            elif missing is not None:
                prepared[case] = Prepared(reason=f"bundles cannot be compiled here: {missing}")
            elif case.engine == "torch":
                prepared[case] = Prepared()
            else:
                prepared[case] = _compiled(settings, case, bundles, Path(folder), console)
        yield prepared


def _compiled(
    settings: Settings, case: Case, bundles: dict[tuple[Method, str, str], Bundle], folder: Path, console: Console
) -> Prepared:
    from edge_far.bench.work.bundles import compile_random

    key = (case.method, case.precision, case.embeddings)
    if key not in bundles:
        console.info(f"compiling {Path(settings.model).name}, {case.method.name}, {case.precision}")
        try:
            bundles[key] = compile_random(
                settings.model,
                folder / "-".join((case.method.name, case.precision, case.embeddings)),
                retention=case.method.retention,
                precision=case.precision,
                embeddings=case.embeddings,
                dropout=settings.dropout,
                with_ort="ort-training" in settings.engines and case.precision == "fp32" and not case.method.is_rung,
                rung=case.method.rung,
                heads=case.method.heads,
                pooling=settings.pooling,
                seed=settings.seed,
            )
        except EdgeFarError as error:
            return Prepared(reason=str(error))
    bundle = bundles[key]
    longest = bundle.manifest.defaults.max_seq_len
    if settings.length > longest:
        raise UsageError(f"the model reads at most {longest} tokens", where="--length")
    return _checked(case, bundle)


def _of_bundle(settings: Settings, bundle: Bundle) -> dict[Case, Prepared]:
    """Return the rows of a finished bundle: its own method on the engines that run bundles."""
    manifest = bundle.manifest
    selection = manifest.selection
    longest = manifest.defaults.max_seq_len
    if settings.length > longest:
        raise UsageError(f"the bundle reads at most {longest} tokens", where="--length")
    cases = choose_cases(
        cases_for(settings.engines, [method_of(selection)], [manifest.portable.frozen_precision], selection.embeddings),
        settings.only,
    )
    reason = "a bundle holds no model for PyTorch: name a geometry or a directory with a config.json"
    return {case: Prepared(reason=reason) if case.engine == "torch" else _checked(case, bundle) for case in cases}


def _checked(case: Case, bundle: Bundle) -> Prepared:
    reason = available(bundle) if case.engine == "ort-training" else None
    return Prepared(reason=reason) if reason else Prepared(bundle)


def _task(settings: Settings, case: Case, bundle: Bundle | None) -> Task:
    return Task(
        engine=case.engine,
        model=settings.model,
        bundle=str(bundle.root.resolve()) if bundle is not None else None,
        retention=case.method.retention,
        embeddings=case.embeddings,
        attention=case.attention,
        batch=settings.batch,
        micro_batch=settings.micro_batch,
        length=settings.length,
        threads=settings.threads,
        steps=settings.steps,
        warmup=settings.warmup,
        dropout=settings.dropout,
        seed=settings.seed,
        optimizer=_optimizer(settings, case),
        pooling=settings.pooling,
        variant=_step_graph(settings, case, bundle),
        phase=case.phase,
    )


def _step_graph(settings: Settings, case: Case, bundle: Bundle | None) -> str:
    """Return the graph asked for, or the plain step where the row has no other."""
    if case.engine != "edge-far" or bundle is None:
        return "step"
    graphs = [step.name for step in bundle.manifest.portable.steps]
    return settings.step_graph if settings.step_graph in graphs else graphs[0]


def _optimizer(settings: Settings, case: Case) -> str:
    return settings.optimizer if case.engine == "edge-far" else DEFAULT_OPTIMIZER


def _counts(settings: Settings, case: Case, bundle: Bundle | None) -> Counts:
    """Return what the bundle's step or fill asks for; of other engines' graphs nothing is known here."""
    if case.engine != "edge-far" or bundle is None:
        return Counts()
    work = Work(settings.batch, settings.micro_batch, settings.length)
    if case.phase == "fill":
        return count_fill(bundle, work)
    return count_step(bundle, _step_graph(settings, case, bundle), settings.optimizer, work)
