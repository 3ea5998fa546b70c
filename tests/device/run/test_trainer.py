"""The training loop against torch's losses, and under memory pressure; runs on whichever ONNX Runtime is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.console import Console
from edge_far.device.board.memory import ResidentSet
from edge_far.device.board.pressure import MemoryWatch
from edge_far.device.engine.backend import Backend, DropoutKey
from edge_far.device.engine.session import PortableBackend
from edge_far.device.optimizers import adamw8bit
from edge_far.device.optimizers.registry import OPTIMIZERS
from edge_far.device.planning.plan import Plan, make_plan, shapes_of
from edge_far.device.run.checkpoint import RunDirectory
from edge_far.device.run.runlog import RunLog
from edge_far.device.run.settings import resolve_settings
from edge_far.device.run.signals import StopRequest
from edge_far.device.run.trainer import TrainData, Trainer
from edge_far.errors import ConfigError, Deferred
from edge_far.tasks.classify import Classify
from edge_far.texts.batches import Batch
from edge_far.texts.data import read_examples
from edge_far.texts.encode import Encoded, Encoder
from tests.tiny_cases import TRAINING_BATCH, TRAINING_RATE, TRAINING_STEPS, Oracle, cases

OpenBundle = Callable[[str], Bundle]


class Counting:
    """A backend that notes the rows of each micro-batch it is given, and kills the run where it is told to."""

    def __init__(self, inner: Backend, seen: list[tuple[int, int]], killed_at: tuple[int, int] | None) -> None:
        self.inner, self.seen, self.killed_at = inner, seen, killed_at
        self.name, self.parameters, self.gradients = inner.name, inner.parameters, inner.gradients
        self.variants: list[tuple[int, str]] = []

    def accumulate(self, batch: Batch, loss_scale: float, key: DropoutKey | None, variant: str = "step") -> float:
        assert key is not None
        if self.killed_at == (key.step, key.micro_batch):
            raise Killed
        self.seen.append((key.step, len(batch.labels)))
        self.variants.append((key.step, variant))
        return self.inner.accumulate(batch, loss_scale, key, variant)

    def logits(self, batch: Batch) -> np.ndarray:
        return self.inner.logits(batch)

    def close(self) -> None:
        self.inner.close()


class Killed(Exception):
    """Stands for kill -9: nothing is saved."""


def encode(bundle: Bundle, path: Path) -> Encoded:
    labels = bundle.manifest.labels
    portable = bundle.manifest.portable
    encoder = Encoder(bundle.path("tokenizer.json"), 64, token_types=portable.token_types)
    return encoder.encode(read_examples(path, labels=labels), labels)


def plan_of(bundle: Bundle, encoded: Encoded, batch_size: int) -> Plan:
    return make_plan(bundle.manifest, shapes_of(encoded, batch_size), 4096.0, 100.0)


def make_trainer(
    bundle: Bundle,
    data: Path,
    run: Path,
    *,
    short_at: tuple[int, ...] = (),
    killed_at: tuple[int, int] | None = None,
    variant: str | None = None,
    **wishes: Any,
) -> tuple[Trainer, list[tuple[int, int]]]:
    """Return a trainer whose memory is short after the steps `short_at`, and the micro-batches it will have run."""
    settings = resolve_settings(bundle, {"batch_size": 4, **wishes})
    encoded = encode(bundle, data)
    directory = RunDirectory(run)
    run.mkdir(exist_ok=True)
    directory.prepare()
    seen: list[tuple[int, int]] = []
    learners = read_arrays(bundle.path("learners.safetensors"))

    def backend() -> Backend:
        return Counting(PortableBackend(bundle, learners, 1, dropout=settings.dropout), seen, killed_at)

    def resident() -> ResidentSet:
        now = 999.0 if trainer.state.step in short_at else 1.0
        return ResidentSet(now, now)

    watch = MemoryWatch(100.0, 0.0, resident=resident, available=lambda: None, psi=lambda: None)
    plan = plan_of(bundle, encoded, settings.batch_size)
    if variant is not None:
        plan = replace(plan, variants=dict.fromkeys(plan.variants, variant))
    trainer = Trainer(
        settings,
        TrainData(encoded, None, Classify(bundle.manifest.labels)),
        plan,
        directory,
        backend,
        watch,
        Console(quiet=True),
        no_decay=frozenset(p.name for p in bundle.manifest.portable.parameters if not p.decay),
        checkpoint_seconds=3600.0,
        checkpoint_steps=5,
    )
    trainer.resume(directory.load_latest())
    return trainer, seen


def finish(trainer: Trainer) -> dict[str, Any]:
    with RunLog(trainer.run.log) as log, StopRequest() as stop:
        return trainer.train(stop, log)


def events(run: Path, kind: str) -> Iterator[dict[str, Any]]:
    for line in (run / "log.jsonl").read_text().splitlines():
        if (record := json.loads(line))["event"] == kind:
            yield record


# Without dropout attention is one operator, which the ONNX Runtime of onnxruntime-training does not know.
TRAINING = [
    pytest.param(case.name, marks=[] if case.dropout else pytest.mark.device) for case in cases() if case.trains
]


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("micro_batch", [4, 1])
def test_twenty_steps_give_the_losses_of_torch(
    name: str,
    micro_batch: int,
    tiny_bundle: OpenBundle,
    oracle: Callable[[str], Oracle],
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    bundle = tiny_bundle(name)
    settings = resolve_settings(
        bundle,
        {
            "batch_size": TRAINING_BATCH,
            "learning_rate": TRAINING_RATE,
            "max_steps": TRAINING_STEPS,
            "epochs": 100,
            "dropout": False,
        },
    )
    encoded = encode(bundle, tiny_data)
    plan = make_plan(bundle.manifest, shapes_of(encoded, TRAINING_BATCH), 4096.0, 100.0, micro_batch)
    assert plan.micro_batch == micro_batch
    learners = read_arrays(bundle.path("learners.safetensors"))
    directory = RunDirectory(tmp_path)
    directory.prepare()
    trainer = Trainer(
        settings,
        TrainData(encoded, None, Classify(bundle.manifest.labels)),
        plan,
        directory,
        lambda: PortableBackend(bundle, learners, 1, dropout=False),
        MemoryWatch(4096.0, 0.0),
        Console(quiet=True),
        no_decay=frozenset(p.name for p in bundle.manifest.portable.parameters if not p.decay),
        checkpoint_seconds=3600.0,
    )
    finish(trainer)
    found = np.array([event["loss"] for event in events(tmp_path, "step")])
    expected = oracle(name).training_losses()
    assert found.shape == (TRAINING_STEPS,) and np.ptp(expected) > 0.1, "something was learnt"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_step_down_loses_no_sample(tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path) -> None:
    trainer, seen = make_trainer(tiny_bundle("tiny-fp32"), tiny_data, tmp_path, short_at=(4,), max_steps=9, epochs=3)
    result = finish(trainer)
    assert [sum(rows for step, rows in seen if step == number) for number in range(9)] == [4] * 9
    assert max(rows for step, rows in seen if step < 4) == 4
    assert max(rows for step, rows in seen if step >= 4) == 2
    assert result["step_downs"] == 1
    (event,) = events(tmp_path, "step_down")
    assert event["step"] == 4 and event["divisor"] == 2 and "999 MiB exceeds" in event["reason"]


@pytest.mark.parametrize("killed_at", [(4, 1), (6, 0), (8, 1)])
def test_killed_after_a_step_down_the_run_ends_with_the_same_bytes(
    killed_at: tuple[int, int], tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path
) -> None:
    bundle = tiny_bundle("tiny-fp32")
    whole, _ = make_trainer(bundle, tiny_data, tmp_path / "whole", short_at=(4,), max_steps=9, epochs=3)
    expected = finish(whole)["learners_sha256"]
    run = tmp_path / "run"
    trainer, _ = make_trainer(bundle, tiny_data, run, short_at=(4,), killed_at=killed_at, max_steps=9, epochs=3)
    with pytest.raises(Killed):
        finish(trainer)
    # The machine has memory again; the run keeps the plan that it had stepped down to.
    resumed, seen = make_trainer(bundle, tiny_data, run, max_steps=9, epochs=3)
    assert resumed.state.divisor == 2 and 4 <= resumed.state.step <= killed_at[0]
    assert finish(resumed)["learners_sha256"] == expected
    assert max(rows for _, rows in seen) == 2
    without, _ = make_trainer(bundle, tiny_data, tmp_path / "without", max_steps=9, epochs=3)
    assert finish(without)["learners_sha256"] != expected, "the step-down matters for the last bits"


def test_smallest_plan_defers_with_a_checkpoint(tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle("tiny-int8")  # the lean step graph of tiny-fp32 has the same peak
    short = tuple(range(1, 12))
    trainer, seen = make_trainer(bundle, tiny_data, tmp_path, short_at=short, max_steps=12, epochs=4)
    with pytest.raises(Deferred, match="smallest plan is running") as raised:
        finish(trainer)
    assert raised.value.exit_code == 75
    stopped = trainer.state.step
    assert trainer.state.divisor == 4 and trainer.state.leanest and 1 < stopped < 12
    assert (tmp_path / "checkpoints" / f"step-{stopped:08d}").is_dir()
    resumed, more = make_trainer(bundle, tiny_data, tmp_path, max_steps=12, epochs=4)
    assert finish(resumed)["steps"] == 12
    assert {rows for _, rows in more} == {1}
    assert [sum(rows for step, rows in seen + more if step == number) for number in range(12)] == [4] * 12


LEAN_BUNDLE = "roberta-r10-5-dropout"  # one of five labels that has a second step graph


def variants_of(trainer: Trainer) -> list[tuple[int, str]]:
    """Return the step graphs that the trainer's last backend was asked for."""
    assert isinstance(trainer.backend, Counting)
    return trainer.backend.variants


def test_a_run_on_the_leaner_step_graph_ends_with_the_same_bytes(
    tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path
) -> None:
    hashes = []
    for variant in ("step", "step-remat"):
        trainer, _ = make_trainer(
            tiny_bundle(LEAN_BUNDLE), tiny_data, tmp_path / variant, variant=variant, max_steps=6, epochs=2
        )
        hashes.append(finish(trainer)["learners_sha256"])
        assert {name for _, name in variants_of(trainer)} == {variant}
    assert hashes[0] == hashes[1]


def test_after_single_examples_a_step_down_takes_the_leaner_step_graph(
    tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path
) -> None:
    bundle = tiny_bundle(LEAN_BUNDLE)
    trainer, _ = make_trainer(bundle, tiny_data, tmp_path, short_at=(2,), batch_size=1, max_steps=9, epochs=3)
    leanest = trainer.plan.leanest
    assert leanest != "step" and set(trainer.plan.variants.values()) == {"step"}
    result = finish(trainer)
    assert variants_of(trainer) == [(step, leanest) for step in range(2, 9)]
    assert result["step_downs"] == 1
    (event,) = events(tmp_path, "step_down")
    assert event["step"] == 2 and event["divisor"] == 1 and event["leanest"] is True


def test_killed_after_it_took_the_leaner_step_graph_a_run_stays_with_it(
    tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path
) -> None:
    bundle = tiny_bundle(LEAN_BUNDLE)
    wishes: dict[str, Any] = {"batch_size": 1, "max_steps": 9, "epochs": 3}
    whole, _ = make_trainer(bundle, tiny_data, tmp_path / "whole", short_at=(2,), **wishes)
    expected = finish(whole)["learners_sha256"]
    run = tmp_path / "run"
    trainer, _ = make_trainer(bundle, tiny_data, run, short_at=(2,), killed_at=(7, 0), **wishes)
    with pytest.raises(Killed):
        finish(trainer)
    resumed, _ = make_trainer(bundle, tiny_data, run, **wishes)
    assert resumed.state.leanest
    assert finish(resumed)["learners_sha256"] == expected
    assert {name for _, name in variants_of(resumed)} == {resumed.plan.leanest} != {"step"}


def test_the_leanest_step_graph_with_single_examples_is_the_end(
    tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path
) -> None:
    bundle = tiny_bundle(LEAN_BUNDLE)
    short = tuple(range(1, 9))
    trainer, _ = make_trainer(bundle, tiny_data, tmp_path, short_at=short, batch_size=2, max_steps=9, epochs=3)
    with pytest.raises(Deferred, match="smallest plan is running"):
        finish(trainer)
    assert trainer.state.divisor == 2 and trainer.state.leanest


def test_short_memory_after_the_last_step_is_no_reason_to_defer(
    tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path
) -> None:
    trainer, _ = make_trainer(
        tiny_bundle("tiny-fp32"), tiny_data, tmp_path, short_at=(3,), batch_size=1, max_steps=3, epochs=1
    )
    assert finish(trainer)["steps"] == 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_killed_step_is_done_again_as_a_whole(
    optimizer: str, tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adamw8bit, "SMALLEST", 200)  # a tiny model has no parameter of 4,096 numbers
    bundle = tiny_bundle("tiny-int8")
    wishes = {
        "max_steps": 9,
        "epochs": 3,
        "optimizer": optimizer,
        "learning_rate": 0.01 if optimizer == "sgd" else 1e-3,
    }
    whole, _ = make_trainer(bundle, tiny_data, tmp_path / "whole", **wishes)
    state = {array.dtype.name for array in whole.optimizer.state_arrays().values()}
    assert state == {"int64", "float32", *({"int8", "uint8"} if optimizer == "adamw8bit" else ())}
    expected = finish(whole)
    assert expected["optimizer"] == optimizer
    run = tmp_path / "run"
    for killed_at in ((3, 0), (8, 0)):
        trainer, _ = make_trainer(bundle, tiny_data, run, killed_at=killed_at, **wishes)
        with pytest.raises(Killed):
            finish(trainer)
    resumed, _ = make_trainer(bundle, tiny_data, run, **wishes)
    assert resumed.state.step == 6 and resumed.optimizer.steps == 6
    result = finish(resumed)
    assert result["learners_sha256"] == expected["learners_sha256"]
    assert result["final_loss"] == expected["final_loss"]


def test_a_checkpoint_of_another_optimiser_is_refused(tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle("tiny-fp32")
    trainer, _ = make_trainer(bundle, tiny_data, tmp_path, max_steps=3, optimizer="lion")
    finish(trainer)
    with pytest.raises(ConfigError, match="the checkpoint was written with lion, not sgd") as raised:
        make_trainer(bundle, tiny_data, tmp_path, max_steps=3, optimizer="sgd")
    assert raised.value.where == "--optimizer" and "--optimizer lion" in (raised.value.hint or "")


def test_an_overflow_in_the_optimiser_is_divergence_and_no_warning_of_numpy(
    tiny_bundle: OpenBundle, tiny_data: Path, tmp_path: Path
) -> None:
    trainer, _ = make_trainer(tiny_bundle("tiny-fp32"), tiny_data, tmp_path / "run", epochs=4)
    for name, array in trainer.optimizer.state_arrays().items():
        array[...] = 1e30 if "first" in name else 0
    with pytest.raises(ConfigError, match="diverged"), RunLog(tmp_path / "log.jsonl") as log, StopRequest() as stop:
        trainer.train(stop, log)  # a warning would be an error here
