"""Plans: inside the budget, monotone in it, even micro-batches, and a budget that works when none does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Manifest, Parameter
from edge_far.device.board.memory import MIB
from edge_far.device.engine.backend import ALONE, FillWidth
from edge_far.device.evaluation import TOKENS_PER_BATCH
from edge_far.device.optimizers.registry import OPTIMIZERS, state_bytes
from edge_far.device.planning.parts import ARENA_TABLE, FILL_TOKENS, activations_mib, prefix_mib, value_at
from edge_far.device.planning.plan import NEARLY_EQUAL, RESERVE, Choice, Shapes, make_plan, shapes_of
from edge_far.errors import BudgetError, BundleError
from edge_far.texts.batches import split_batch
from edge_far.texts.encode import Encoded

RUNTIME_MIB = 60.0
LENGTHS = tuple(range(8, 65, 8))
SHAPES = Shapes(LENGTHS, 16, LENGTHS)


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Callable[[str], Bundle]) -> Manifest:
    """Return a tiny bundle's manifest with the plain step alone, its sizes times 300: as large as a real model's."""
    found = tiny_bundle("tiny-fp32").manifest
    grow = lambda peaks: tuple(tuple((b, s, 300 * value) for b, s, value in size) for size in peaks)  # noqa: E731
    packing = ((64.0, 1.2),)
    steps = tuple(replace(step, peaks=grow(step.peaks), packing=packing) for step in found.portable.steps[:1])
    infer = replace(found.portable.infer, peaks=grow(found.portable.infer.peaks), packing=packing)
    portable = replace(found.portable, steps=steps, infer=infer)
    return replace(found, portable=portable)


def smallest(manifest: Manifest, shapes: Shapes = SHAPES) -> int:
    with pytest.raises(BudgetError) as raised:
        make_plan(manifest, shapes, 1.0, RUNTIME_MIB)
    found = re.search(r"at least (\d+) MiB", raised.value.message)
    assert found and f"raise the budget to {found[1]}," in (raised.value.hint or "")
    return int(found[1])


def test_the_budget_that_is_named_works_and_is_the_smallest(manifest: Manifest) -> None:
    needed = smallest(manifest)
    plan = make_plan(manifest, SHAPES, needed, RUNTIME_MIB)
    assert plan.micro_batch == 1 and plan.predicted_peak_mib <= needed
    with pytest.raises(BudgetError):
        make_plan(manifest, SHAPES, needed - 5, RUNTIME_MIB)


def test_more_budget_never_gives_smaller_micro_batches(manifest: Manifest) -> None:
    needed = smallest(manifest)
    plans = [make_plan(manifest, SHAPES, budget, RUNTIME_MIB) for budget in range(needed, needed + 2000, 20)]
    for less, more in itertools.pairwise(plans):
        assert all(less.rows[length] <= more.rows[length] for length in LENGTHS)
        assert less.evaluation_tokens <= more.evaluation_tokens
    assert plans[0].micro_batch == 1 and plans[-1].micro_batch == 16
    for plan in plans:
        assert plan.predicted_peak_mib <= plan.budget_mib * (1 - RESERVE)
        assert plan.predicted_peak_mib == pytest.approx(sum(plan.parts_mib.values()))
        longer = list(plan.rows.values())
        assert longer == sorted(longer, reverse=True), "longer texts, fewer at a time"


def test_micro_batches_are_even(manifest: Manifest) -> None:
    needed = smallest(manifest)
    for budget in range(needed, needed + 400, 9):
        plan = make_plan(manifest, SHAPES, budget, RUNTIME_MIB)
        for length, rows in plan.rows.items():
            lengths = np.full(16, length)
            parts = [len(part) for part in split_batch(lengths, np.arange(16), lambda _, rows=rows: rows)]
            assert sum(parts) == 16 and max(parts) == rows
            assert rows == -(-16 // len(parts)), f"{len(parts)} micro-batches need no more than {rows} rows"
        assert plan.accumulation == -(-16 // plan.micro_batch)


def test_evaluation_fits_the_same_room(manifest: Manifest) -> None:
    needed = smallest(manifest)
    small, large = (make_plan(manifest, SHAPES, budget, RUNTIME_MIB) for budget in (needed, needed + 1000))
    assert small.evaluation_tokens < large.evaluation_tokens == TOKENS_PER_BATCH
    for plan in (small, large):
        room = plan.budget_mib * (1 - RESERVE) - sum(v for k, v in plan.parts_mib.items() if k != "activations")
        for length in LENGTHS:
            rows = max(1, plan.evaluation_tokens // length)
            peak = max(value_at(size, rows, length) for size in manifest.portable.infer.peaks) / MIB
            assert peak <= room
    without = make_plan(manifest, replace(SHAPES, evaluation_lengths=()), needed, RUNTIME_MIB)
    assert without.evaluation_tokens == TOKENS_PER_BATCH


def test_the_larger_packing_of_the_probed_lengths_around_counts(manifest: Manifest) -> None:
    (step,) = manifest.portable.steps
    tight = replace(step, packing=((16.0, 1.5), (32.0, 1.1), (64.0, 1.0)))
    portable = replace(manifest.portable, steps=(tight,))
    found = {}
    for length in (8, 16, 24, 32, 48, 64, 128):
        shapes = Shapes((length,), 16)
        plan = make_plan(replace(manifest, portable=portable), shapes, 1e6, RUNTIME_MIB)
        live = max(value_at(size, 16, length) for size in step.peaks) / MIB
        found[length] = plan.parts_mib["activations"] / live / ARENA_TABLE
    assert found == pytest.approx({8: 1.5, 16: 1.5, 24: 1.5, 32: 1.5, 48: 1.1, 64: 1.1, 128: 1.0})


def test_largest_micro_batch_is_a_limit(manifest: Manifest) -> None:
    plan = make_plan(manifest, SHAPES, 4096.0, RUNTIME_MIB, 6)
    assert set(plan.rows.values()) == {6} and plan.accumulation == 3


def test_a_kept_choice_is_described_even_where_it_does_not_fit(manifest: Manifest) -> None:
    choice = Choice(dict.fromkeys(LENGTHS, 16), 256)
    plan = make_plan(manifest, SHAPES, 64.0, RUNTIME_MIB, keep=choice)
    assert plan.choice == replace(choice, variants=dict.fromkeys(LENGTHS, "step")) and plan.micro_batch == 16
    assert plan.predicted_peak_mib > plan.budget_mib
    assert plan.predicted_peak_mib == make_plan(manifest, SHAPES, 9999.0, RUNTIME_MIB, keep=choice).predicted_peak_mib


def test_lengths_between_the_planned_ones_take_the_next_longer(manifest: Manifest) -> None:
    plan = make_plan(manifest, SHAPES, smallest(manifest) + 60, RUNTIME_MIB)
    assert plan.rows[16] > plan.rows[64]
    assert plan.rows_for(9) == plan.rows[16] and plan.rows_for(64) == plan.rows[64]
    assert plan.rows_for(100) == min(plan.rows.values())


def test_state_is_the_chosen_optimisers(manifest: Manifest) -> None:
    sizes = {}
    for name in OPTIMIZERS:
        plan = make_plan(manifest, SHAPES, 4096.0, RUNTIME_MIB, optimizer=name)
        sizes[name] = plan.parts_mib["optimiser"]
        assert plan.optimizer == plan.to_json()["optimizer"] == name
    trained = [parameter.shape for parameter in manifest.portable.parameters]
    assert sizes == {name: state_bytes(name, trained) / MIB for name in OPTIMIZERS}
    assert sizes["adamw"] == 2 * sizes["lion"] == 8 * manifest.trained_parameters / MIB
    assert make_plan(manifest, SHAPES, 4096.0, RUNTIME_MIB).optimizer == "adamw"


def test_a_refusal_names_the_optimiser_that_would_fit_and_does_not_choose_it(manifest: Manifest) -> None:
    one = Parameter("w", (4096, 4096), True)  # 64 MiB; 128 of moments, 34 in 8 bits
    large = replace(manifest, portable=replace(manifest.portable, parameters=(one,)))
    needed = smallest(large)
    for budget in (needed - 5, needed - 80):
        with pytest.raises(BudgetError, match=f"at least {needed} MiB") as raised:
            make_plan(large, SHAPES, budget, RUNTIME_MIB)
        found = re.search(
            r"; --optimizer (\w+) would fit: predicted (\d+) MiB for the smallest plan$", raised.value.hint or ""
        )
        assert found and found[1] == "adamw8bit"
        one_by_one = Choice(dict.fromkeys(LENGTHS, 1), min(LENGTHS))
        least = make_plan(large, SHAPES, budget, RUNTIME_MIB, keep=one_by_one, optimizer=found[1])
        assert make_plan(large, SHAPES, budget, RUNTIME_MIB, optimizer=found[1]).predicted_peak_mib <= budget
        assert float(found[2]) == pytest.approx(least.predicted_peak_mib, abs=0.5)
    with pytest.raises(BudgetError) as raised:
        make_plan(large, SHAPES, needed - 150, RUNTIME_MIB)
    found = re.search(r"; with --optimizer adamw8bit a budget of (\d+) would do$", raised.value.hint or "")
    assert found
    assert make_plan(large, SHAPES, int(found[1]), RUNTIME_MIB, optimizer="adamw8bit").micro_batch == 1
    with pytest.raises(BudgetError) as raised:
        make_plan(large, SHAPES, int(found[1]) - 5, RUNTIME_MIB, optimizer="adamw8bit")
    assert "--optimizer" not in (raised.value.hint or ""), "nothing needs less"


def test_texts_are_computed_side_by_side_where_there_is_room(tiny_bundle: Callable[[str], Bundle]) -> None:
    """Each thread a text, with weights packed once: megabytes of a real model's prefix; and several texts in a run."""
    manifest = tiny_bundle("bert-top1-5").manifest
    prefix = manifest.portable.prefix
    assert prefix is not None
    large = replace(prefix, constant_bytes=80 * MIB, graph=replace(prefix.graph, peaks=(((1, 1, 400_000.0),),)))
    manifest = replace(manifest, portable=replace(manifest.portable, prefix=large, frozen_precision="int8"))
    besides = 80 + 3 * prefix_mib(large, max(SHAPES.lengths))["activations"]
    assert besides > 95
    alone = make_plan(manifest, SHAPES, 4096.0, RUNTIME_MIB)
    assert alone.fill == FillWidth(1, SHAPES.longest) and alone.fill_peak_mib is not None
    wide = make_plan(manifest, SHAPES, 4096.0, RUNTIME_MIB, threads=4)
    assert wide.fill == FillWidth(4, SHAPES.longest) and wide.fill_peak_mib == pytest.approx(
        alone.fill_peak_mib + besides
    )
    assert wide.predicted_peak_mib == wide.fill_peak_mib
    for more, texts in ((-1.0, 1), (1.0, 4)):
        budget = (alone.fill_peak_mib + besides + more) / (1 - RESERVE)
        assert make_plan(manifest, SHAPES, budget, RUNTIME_MIB, threads=4).fill.threads == texts
    assert make_plan(manifest, SHAPES, 4096.0, RUNTIME_MIB, threads=4, cached=False).fill == ALONE
    together = replace(manifest, portable=replace(manifest.portable, prefix=replace(large, by_rows=True)))
    run = max(activations_mib(large.graph, FILL_TOKENS // length, length) for length in range(8, SHAPES.longest + 1, 8))
    most = make_plan(together, SHAPES, 4096.0, RUNTIME_MIB, threads=4)
    single = alone.fill_peak_mib - activations_mib(large.graph, 1, SHAPES.longest)
    assert most.fill == FillWidth(4, FILL_TOKENS)
    assert most.fill_peak_mib == pytest.approx(single + 80 + 4 * run)
    narrow = make_plan(together, SHAPES, (single + run + 0.5) / (1 - RESERVE), RUNTIME_MIB, threads=4)
    assert narrow.fill == FillWidth(1, FILL_TOKENS), "one thread has room for several texts"
    long = replace(SHAPES, lengths=(*SHAPES.lengths, 256))
    assert make_plan(together, long, 4096.0, RUNTIME_MIB, threads=4).fill == FillWidth(4, FILL_TOKENS)


def test_a_refusal_gives_no_advice_that_does_not_help(manifest: Manifest) -> None:
    """The tiny model's optimiser needs no whole MiB, and of a head alone nothing smaller can be trained."""
    needed = smallest(manifest)
    for rung, words in (
        ("far", "or export with a smaller --retention or with --method head"),
        ("head", "a smaller model"),
    ):
        changed = replace(manifest, selection=replace(manifest.selection, rung=rung))
        with pytest.raises(BudgetError) as raised:
            make_plan(changed, SHAPES, needed - 50, RUNTIME_MIB)
        hint = raised.value.hint or ""
        assert hint.startswith(f"raise the budget to {needed}, ") and hint.endswith(words)


def test_shapes_are_counted_from_the_data() -> None:
    def encoded(*lengths: int, first: int) -> Encoded:
        starts = np.concatenate([[0], np.cumsum(lengths)])
        tokens = np.arange(first, first + sum(lengths), dtype=np.int32)
        return Encoded(tokens, starts, None, np.zeros(len(lengths), np.int64), 0, 0, 20)

    train = encoded(3, 8, 9, 19, first=0)
    assert shapes_of(train, 16) == Shapes((8, 16, 20), 4)
    assert shapes_of(train, 2, encoded(17, 5, first=30)) == Shapes((8, 16, 20), 2, (8, 20))


class Times:
    """A machine on which recomputing costs `again` times a plain step, and each run 10 ms more than its examples."""

    update = 0.5

    def __init__(self, again: float) -> None:
        self.again = again

    def micro_batch(self, variant: str, rows: int, length: int) -> float:
        return 0.01 + rows * length * 1e-4 * (self.again if variant == "step-remat" else 1.0)


@pytest.fixture(scope="module")
def two_steps(manifest: Manifest) -> Manifest:
    """Return a manifest with a leaner step: a quarter of every peak."""
    plain = manifest.portable.steps[0]
    quarter = tuple(tuple((b, s, value / 4) for b, s, value in size) for size in plain.peaks)
    steps = (plain, replace(plain, name="step-remat", peaks=quarter))
    return replace(manifest, portable=replace(manifest.portable, steps=steps))


TRAINING_ONLY = Shapes(LENGTHS, 16)


def test_without_times_blocks_are_recomputed_only_where_one_example_of_the_plain_step_does_not_fit(
    manifest: Manifest, two_steps: Manifest
) -> None:
    enough = smallest(manifest, TRAINING_ONLY)
    needed = smallest(two_steps, TRAINING_ONLY)
    assert needed < enough - 5
    for budget in range(needed, enough - 4):  # the smallest budget is named with some slack
        plan = make_plan(two_steps, TRAINING_ONLY, budget, RUNTIME_MIB)
        assert plan.variants[64] == plan.leanest == "step-remat" and plan.step_seconds is None
        room = budget * (1 - RESERVE) - sum(v for k, v in plan.parts_mib.items() if k != "activations")
        for length, variant in plan.variants.items():
            plain = max(value_at(size, 1, length) for size in two_steps.portable.steps[0].peaks)
            peak = plain * 1.2 * ARENA_TABLE / MIB
            assert (variant == "step-remat") == (peak > room), length
    assert set(make_plan(two_steps, TRAINING_ONLY, enough + 3, RUNTIME_MIB).variants.values()) == {"step"}


def test_an_engine_with_one_step_graph_gets_the_plain_one(manifest: Manifest, two_steps: Manifest) -> None:
    with pytest.raises(BudgetError, match=f"at least {smallest(manifest, TRAINING_ONLY)} MiB"):
        make_plan(two_steps, TRAINING_ONLY, smallest(two_steps, TRAINING_ONLY), RUNTIME_MIB, only_plain=True)


@pytest.mark.parametrize("again", [1.0, 1.2, 1.5, 4.0])
def test_the_quickest_of_what_fits_is_chosen(two_steps: Manifest, again: float) -> None:
    times = Times(again)
    needed = smallest(two_steps, TRAINING_ONLY)
    for budget in range(needed, needed + 400, 20):
        plan = make_plan(two_steps, TRAINING_ONLY, budget, RUNTIME_MIB, seconds=times)
        room = budget * (1 - RESERVE) - sum(v for k, v in plan.parts_mib.items() if k != "activations")
        assert plan.step_seconds is not None
        for length in LENGTHS:
            seconds = {}
            for step, rows in itertools.product(two_steps.portable.steps, range(1, 17)):
                peak = max(value_at(size, rows, length) for size in step.peaks) * 1.2 * ARENA_TABLE / MIB
                if peak <= room:
                    full, rest = divmod(16, rows)
                    run = times.micro_batch(step.name, rows, length) * full
                    seconds[step.name, rows] = run + (times.micro_batch(step.name, rest, length) if rest else 0) + 0.5
            chosen = seconds[plan.variants[length], plan.rows[length]]
            assert plan.step_seconds[length] == pytest.approx(chosen)
            assert chosen <= NEARLY_EQUAL * min(seconds.values())


def test_of_equally_quick_ones_the_plain_step_and_the_largest_micro_batch_win(two_steps: Manifest) -> None:
    plan = make_plan(two_steps, SHAPES, 99_999.0, RUNTIME_MIB, seconds=Times(1.0))
    assert set(plan.variants.values()) == {"step"} and set(plan.rows.values()) == {16}
    assert plan.variant_for(9) == "step" and plan.variant_for(1000) == plan.leanest


def test_a_run_keeps_its_step_graphs_and_an_unknown_one_is_refused(two_steps: Manifest) -> None:
    kept = Choice({8: 2, 16: 1}, 256, {16: "step-remat"})
    plan = make_plan(two_steps, Shapes((8, 16), 4), 4096.0, RUNTIME_MIB, keep=kept, seconds=Times(9.0))
    assert plan.variants == {8: "step", 16: "step-remat"} and plan.rows == {8: 2, 16: 1}
    with pytest.raises(BundleError, match="no step graph 'step-tiny'"):
        make_plan(two_steps, Shapes((8,), 4), 4096.0, RUNTIME_MIB, keep=Choice({8: 1}, 256, {8: "step-tiny"}))
