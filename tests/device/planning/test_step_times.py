"""Predicted times: sums over operators by hand, speeds between measured sizes, and a whole run step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Manifest, OperatorCost
from edge_far.device.engine.backend import FillWidth
from edge_far.device.evaluation import rows_by_length
from edge_far.device.planning.machine_speed import Calibration
from edge_far.device.planning.plan import Choice, Shapes, make_plan
from edge_far.device.planning.step_times import StepTimes
from edge_far.device.run.prediction import predict_fill, predict_run
from edge_far.device.run.settings import resolve_settings
from edge_far.texts.batches import collate, plan_epoch, split_batch
from edge_far.texts.encode import Encoded

NODE, MASK, PARAMETER = 1e-6, 1e-9, 2e-9


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Callable[[str], Bundle]) -> Bundle:
    return tiny_bundle("roberta-r10-5-dropout")


def calibration(**kernels: tuple[tuple[float, float, float], ...]) -> Calibration:
    return Calibration("machine", "1.0", 2, kernels, {}, NODE, MASK, {"adamw": PARAMETER, "lion": 2 * PARAMETER})


def flat(manifest: Manifest, per_work: float = 1e-9) -> Calibration:
    """Return a machine that needs the same time for any work."""
    return calibration(**{operator.kernel: ((1.0, 1.0, per_work),) for operator in manifest.portable.probe})


def with_costs(manifest: Manifest, *costs: OperatorCost) -> Manifest:
    steps = tuple(replace(step, costs=costs) for step in manifest.portable.steps)
    return replace(manifest, portable=replace(manifest.portable, steps=steps, masks=()))


def test_a_step_is_the_sum_of_its_operators(bundle: Bundle) -> None:
    costs = (
        OperatorCost("product", ((1, 1, 100.0),), ((1, 1, 1.0),), 3),
        OperatorCost("other", ((0, 0, 7.0), (1, 2, 2.0)), ((0, 0, 7.0), (1, 2, 2.0)), 2),
        OperatorCost("node", (), (), 5),
    )
    machine = calibration(product=((1.0, 1.0, 1e-8),), other=((1.0, 1.0, 1e-7),))
    times = StepTimes(with_costs(bundle.manifest, *costs), machine, dropout=True)
    expected = 3 * 100 * 4 * 8 * 1e-8 + 2 * (7 + 2 * 4 * 8**2) * 1e-7 + 10 * NODE
    assert times.micro_batch("step", 4, 8) == pytest.approx(expected, rel=1e-12)
    assert times.update == pytest.approx(bundle.manifest.trained_parameters * PARAMETER)
    other = StepTimes(bundle.manifest, flat(bundle.manifest), dropout=False, optimizer="lion")
    assert other.update == pytest.approx(2 * times.update)


def test_a_text_of_several_side_by_side_takes_a_share_of_their_time(tiny_bundle: Callable[[str], Bundle]) -> None:
    manifest = tiny_bundle("bert-top1-5").manifest
    machine = flat(manifest, 1e-9)
    times = StepTimes(manifest, machine, dropout=False)
    assert times.prefix(8, 2) == times.prefix(8), "as long as with all threads on each text"
    loaded = replace(machine, kernels_beside=flat(manifest, 3e-9).kernels)
    beside = StepTimes(manifest, loaded, dropout=False)
    assert beside.prefix(8) == times.prefix(8)
    nodes = sum(cost.count for cost in manifest.portable.prefix.graph.costs) * NODE  # type: ignore[union-attr]
    assert beside.prefix(8, 2) == pytest.approx((3 * (times.prefix(8) - nodes) + nodes) / 2, rel=1e-9)
    assert times.prefix(8) < times.prefix(8, texts=3) < 3 * times.prefix(8), "operators are begun once"


def test_a_fill_is_the_sum_of_its_runs(tiny_bundle: Callable[[str], Bundle]) -> None:
    """Of texts of 8 tokens two share a run of 20, of texts of 12 none."""
    bundle = tiny_bundle("distilbert-top1-5-int8")
    manifest = bundle.manifest
    prefix = manifest.portable.prefix
    assert prefix is not None and prefix.by_rows
    times = StepTimes(manifest, flat(manifest, 1e-9), dropout=False)
    lengths = [8, 12, 8, 8, 8]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    texts = Encoded(np.zeros(starts[-1], np.int32), starts, None, np.zeros(5, np.int64), 0, 0, 16)
    width = FillWidth(1, 20)
    expected = 2 * times.prefix(8, texts=2) + times.prefix(12)
    assert predict_fill(times, prefix, width, texts) == pytest.approx(expected, rel=1e-12)
    alone = replace(prefix, by_rows=False)
    assert predict_fill(times, alone, width, texts) == pytest.approx(4 * times.prefix(8) + times.prefix(12), rel=1e-12)


def test_speeds_lie_on_a_line_between_measured_sizes_and_keep_still_beyond(bundle: Bundle) -> None:
    cost = OperatorCost("k", ((1, 0, 10.0),), ((1, 0, 1.0),), 1)
    # 1e-3 s a unit of work at size 1, 1e-5 at size 100; at size 10, in logarithms half way: 1e-4.
    machine = calibration(k=((1.0, 10.0, 1e-2), (100.0, 1000.0, 1e-2)))
    times = StepTimes(with_costs(bundle.manifest, cost), machine, dropout=False)
    for batch, per_work in ((1, 1e-3), (10, 1e-4), (100, 1e-5), (1000, 1e-5)):
        assert times.micro_batch("step", batch, 8) == pytest.approx(batch * 10 * per_work + NODE, rel=1e-9)


def test_dropout_adds_the_drawing_of_its_bits(bundle: Bundle) -> None:
    manifest = bundle.manifest
    quiet, noisy = (StepTimes(manifest, flat(manifest), dropout=dropout) for dropout in (False, True))
    values = {"batch": 2, "sequence": 16, "sequence/8": 2, "batch*sequence": 32}
    drawn = sum(
        math.prod(dim if isinstance(dim, int) else values[dim] for dim in mask.shape)
        for mask in manifest.portable.masks
    )
    assert drawn > 0
    difference = noisy.micro_batch("step", 2, 16) - quiet.micro_batch("step", 2, 16)
    assert difference == pytest.approx(drawn * MASK, rel=1e-6)


def test_recomputed_blocks_take_longer(bundle: Bundle) -> None:
    times = StepTimes(bundle.manifest, flat(bundle.manifest), dropout=True)
    plain, again, infer = (
        times.micro_batch("step", 4, 32),
        times.micro_batch("step-remat", 4, 32),
        times.evaluation(4, 32),
    )
    assert plain < again < plain + infer


def test_a_run_is_predicted_from_the_batches_it_will_take(bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(2, 60, 50)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    encoded = Encoded(np.ones(starts[-1], np.int32), starts, None, np.zeros(50, np.int64), 0, 0, 64)
    settings = resolve_settings(bundle, {"batch_size": 8, "epochs": 3, "seed": 5})
    times = StepTimes(bundle.manifest, flat(bundle.manifest), dropout=False)
    shapes = Shapes(tuple(range(8, 65, 8)), 8)
    kept = Choice(dict.fromkeys(shapes.lengths, 3), 128, {64: "step-remat"})
    plan = make_plan(bundle.manifest, shapes, 999.0, 50.0, keep=kept, seconds=times)
    steps = []
    for indices in plan_epoch(encoded.lengths, 8, 5, 0):
        seconds = times.update
        for part in split_batch(encoded.lengths, indices, lambda _: 3):
            rows, length = collate(encoded, part).input_ids.shape
            seconds += times.micro_batch("step-remat" if length == 64 else "step", rows, length)
        steps.append(seconds)
    found = predict_run(times, plan, settings, encoded, None)
    assert found.step_seconds == pytest.approx(np.mean(steps)) and found.seconds == pytest.approx(3 * np.sum(steps))
    groups = [collate(encoded, group).input_ids.shape for group in rows_by_length(encoded.lengths, 128)]
    once = sum(times.evaluation(rows, length) for rows, length in groups)
    evaluated = predict_run(times, plan, settings, encoded, encoded)
    assert evaluated.seconds == pytest.approx(3 * np.sum(steps) + 3 * once)
    short = predict_run(times, plan, replace(settings, max_steps=4), encoded, None)
    assert short.seconds == pytest.approx(4 * np.mean(steps))
