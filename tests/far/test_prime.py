from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_far.console import Console  # noqa: E402
from edge_far.errors import ConfigError, DataError, UsageError  # noqa: E402
from edge_far.far.heads import find_attention_blocks  # noqa: E402
from edge_far.far.nodes import find_ffn_blocks  # noqa: E402
from edge_far.far.prime import PrimingSettings, prime, priming_steps, top_overlap  # noqa: E402

pytestmark = pytest.mark.host

QUIET = Console(quiet=True)
SETTINGS = PrimingSettings(steps=6, planned_steps=40, learning_rate=1e-3, retention=0.2, seed=7)
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture
def batches(make_batch):
    return [make_batch(seed) for seed in range(6)]


@pytest.mark.parametrize(
    ("planned", "fraction", "steps"),
    [(36_816, 0.01, 369), (100, 0.01, 50), (5001, 0.01, 51), (10, 0.0, 50), (30, 1.0, 50), (60, 1.0, 60)],
)
def test_priming_steps(planned, fraction, steps):
    assert priming_steps(planned, fraction) == steps


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_the_metric_is_each_nodes_own_change(tiny_model, batches, architecture):
    model = tiny_model(architecture)
    before = copy.deepcopy(model.state_dict())
    names = {id(module): name for name, module in model.named_modules()}
    result = prime(model, batches, SETTINGS, QUIET)
    after = model.state_dict()
    assert result.steps == 6
    for block, metric in zip(find_ffn_blocks(model), result.metrics, strict=True):
        change = {
            name: (after[name].double() - before[name].double()).numpy()
            for linear in (block.ffns[0].first, block.ffns[0].second)
            for name in (f"{names[id(linear)]}.weight", f"{names[id(linear)]}.bias")
        }
        rows, biases, columns, _ = change.values()
        for node in range(40):
            expected = abs(rows[node]).sum() + abs(biases[node]) + abs(columns[:, node]).sum()
            assert metric[node] == pytest.approx(expected, rel=1e-5)
        assert metric.min() > 0


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_heads_are_measured_in_the_same_run(tiny_model, batches, architecture):
    plain, model = tiny_model(architecture), tiny_model(architecture)
    before = find_attention_blocks(copy.deepcopy(model))
    without = prime(plain, batches, SETTINGS, QUIET)
    result = prime(model, batches, replace(SETTINGS, attention_retention=0.5, cut=0), QUIET)
    assert without.heads is None and result.heads is not None
    assert all(np.array_equal(a, b) for a, b in zip(without.metrics, result.metrics, strict=True))
    assert (without.overlap, without.chance) == (result.overlap, result.chance)
    assert result.heads.chance == 0.5 and 0 <= result.heads.overlap <= 1
    for was, now, metric in zip(before, find_attention_blocks(model), result.heads.metrics, strict=True):
        for head, rows in enumerate((slice(0, 8), slice(8, 16))):
            parts = [
                getattr(new, part)[rows] - getattr(old, part)[rows]
                for old, new in zip(was.inputs, now.inputs, strict=True)
                for part in ("weight", "bias")
            ]
            parts.append(now.output.weight[:, rows] - was.output.weight[:, rows])
            assert metric[head] == pytest.approx(sum(float(p.detach().abs().sum()) for p in parts), rel=1e-4)


def test_heads_alone_can_be_what_is_chosen(tiny_model, batches):
    """All nodes learn, half of the heads do: the overlap is theirs."""
    result = prime(tiny_model("bert"), batches, replace(SETTINGS, retention=1.0, attention_retention=0.5, cut=1), QUIET)
    assert result.overlap is None and result.heads.overlap is not None and len(result.heads.metrics) == 1


@pytest.mark.parametrize("embeddings", ["frozen", "train"])
def test_the_training_is_that_of_torch_with_transformers_schedule(tiny_model, batches, embeddings):
    from transformers import get_linear_schedule_with_warmup

    model = tiny_model("bert", **NO_DROPOUT)
    oracle = copy.deepcopy(model).train()
    decayed, plain = [], []
    for name, parameter in oracle.named_parameters():
        if embeddings == "frozen" and "embeddings" in name:
            parameter.requires_grad_(False)
        elif "LayerNorm" in name or name.endswith(".bias"):
            plain.append(parameter)
        else:
            decayed.append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=1e-3
    )
    schedule = get_linear_schedule_with_warmup(optimizer, 4, 40)
    losses = []
    for batch in batches:
        tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
        optimizer.zero_grad()
        loss = oracle(**tensors).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*decayed, *plain], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    result = prime(model, iter(batches), replace(SETTINGS, embeddings=embeddings), QUIET)
    assert (result.first_loss, result.last_loss) == pytest.approx((losses[0], losses[-1]), rel=1e-6)
    for name, value in oracle.state_dict().items():
        if name.endswith("key.bias"):
            continue  # its gradient is zero in exact arithmetic: Adam follows the rounding
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-6, atol=1e-7)


def test_the_overlap_compares_two_independent_halves(tiny_model, make_batch):
    model = tiny_model("bert", **NO_DROPOUT)
    batches = [make_batch(seed) for seed in range(8)]
    whole = prime(copy.deepcopy(model), batches, replace(SETTINGS, steps=8), QUIET)
    halves = [
        prime(copy.deepcopy(model), part, replace(SETTINGS, steps=4), QUIET).metrics
        for part in (batches[:4], batches[4:])
    ]
    assert whole.chance == 0.2
    assert whole.overlap == top_overlap(*halves, 0.2)
    assert 0 < whole.overlap < 1


@pytest.mark.parametrize("retention", [0, 1])
def test_nothing_to_choose_gives_no_overlap(tiny_model, batches, retention):
    result = prime(tiny_model("bert"), batches, replace(SETTINGS, retention=retention), QUIET)
    assert result.overlap is None
    assert result.chance is None


def test_top_overlap():
    a, b = np.arange(10.0), np.arange(10.0)[::-1]
    assert top_overlap([a], [a], 0.3) == 1
    assert top_overlap([a], [b], 0.3) == 0
    assert top_overlap([a, a], [a, b], 0.3) == 0.5
    assert top_overlap([a], [np.roll(a, 1)], 0.3) == pytest.approx(2 / 3)


def test_reset_restores_the_pretrained_weights(tiny_model, batches):
    model = tiny_model("distilbert")
    before = copy.deepcopy(model.state_dict())
    kept = prime(copy.deepcopy(model), batches, SETTINGS, QUIET)
    reset = prime(model, batches, replace(SETTINGS, start="reset"), QUIET)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(np.array_equal(a, b) for a, b in zip(kept.metrics, reset.metrics, strict=True))


def test_the_same_seed_gives_the_same_run_and_leaves_no_trace(tiny_model, batches):
    model = tiny_model("roberta")
    flags = [p.requires_grad for p in model.parameters()]
    state = torch.get_rng_state()
    one = prime(copy.deepcopy(model), batches, SETTINGS, QUIET)
    torch.rand(3)
    same = prime(model, batches, SETTINGS, QUIET)
    other = prime(tiny_model("roberta"), batches, replace(SETTINGS, seed=8), QUIET)
    assert np.array_equal(one.metrics[0], same.metrics[0])
    assert not np.array_equal(one.metrics[0], other.metrics[0])
    assert not model.training
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    torch.set_rng_state(state)
    prime(model, batches, SETTINGS, QUIET)
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_and_an_overlap_without_warning(tiny_model, make_batch, capsys):
    same = [make_batch(0)] * 6
    result = prime(tiny_model("bert", **NO_DROPOUT), same, SETTINGS, Console())
    shown = capsys.readouterr().err
    assert result.overlap == 1  # two halves of the same batches
    assert "priming: 9/9 (100%)" in shown
    assert f"loss {result.last_loss:.4f}" in shown
    assert "split-half overlap of the chosen nodes 1.00 (chance 0.20)" in shown
    assert "warning" not in shown


def test_a_choice_near_chance_is_warned_of_even_when_quiet(tiny_model, batches, capsys):
    result = prime(tiny_model("bert"), batches, replace(SETTINGS, seed=3), QUIET)
    assert result.overlap < 0.28
    assert "warning: the halves of the 6 priming steps hardly agree" in capsys.readouterr().err


def test_errors(tiny_model, batches):
    model = tiny_model("bert")
    with pytest.raises(DataError, match="needs 6 batches, the data gave 4"):
        prime(model, batches[:4], SETTINGS, QUIET)
    with pytest.raises(DataError, match="0 to 4"):
        prime(model, [{**batch, "labels": batch["labels"] * 0 + 5} for batch in batches], SETTINGS, QUIET)
    with pytest.raises(DataError, match="0 to 4"):
        prime(model, [{**batch, "labels": batch["labels"] * 0 - 1} for batch in batches], SETTINGS, QUIET)
    with pytest.raises(UsageError, match="BertModel has no classification head"):
        prime(model.bert, batches, SETTINGS, QUIET)
    with pytest.raises(ConfigError, match=r"learning_rate: the loss is nan .*lower it from 1e\+20"):
        prime(model, batches, replace(SETTINGS, learning_rate=1e20), QUIET)
    for change in (
        {"steps": 1},
        {"learning_rate": 0.0},
        {"warmup": 2.0},
        {"start": "again"},
        {"embeddings": "x"},
    ):
        with pytest.raises(ConfigError, match=next(iter(change))):
            prime(model, batches, replace(SETTINGS, **change), QUIET)
    with pytest.raises(ConfigError, match="fraction"):
        priming_steps(100, 1.5)
