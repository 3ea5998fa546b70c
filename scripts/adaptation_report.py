"""Table, significance and picture of scripts/adaptation_demo.py, from what it left in --out.

    .venv/bin/python scripts/adaptation_report.py build/adaptation [--picture docs/lab/adaptation.png]

Every comparison is paired: the same sentences, answered by the factory release and by a later one. For one seed the
p-value is McNemar's exact test, two-sided. Over seeds the sentences are the same and the models are not, so a sentence
counts once, with the mean of its differences over the seeds; the interval is the mean's, 1.96 standard errors wide.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

SETS = {"test": "test", "base": "base (valid)", "held_out": "device, held out"}
COLOURS = {"test": "#2b6cb0", "base": "#2f855a", "held_out": "#c05621"}


def main() -> int:
    """Print the tables, and draw the picture where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="what adaptation_demo.py made")
    parser.add_argument("--picture", type=Path, metavar="PNG")
    options = parser.parse_args()
    seeds = {
        folder.name.removeprefix("seed-"): [json.loads(line) for line in (folder / "results.jsonl").open()]
        for folder in sorted(options.out.glob("seed-*"))
        if (folder / "results.jsonl").is_file()
    }
    if not seeds:
        raise SystemExit(f"{options.out}: no results; run scripts/adaptation_demo.py first")
    at_once = {
        seed: json.loads((options.out / f"seed-{seed}" / "at-once.json").read_text())
        for seed in seeds
        if (options.out / f"seed-{seed}" / "at-once.json").is_file()
    }
    print(cycles_table(seeds), comparison_table(seeds, at_once), sep="\n\n")
    if options.picture is not None:
        draw(seeds, options.picture)
    return 0


def cycles_table(seeds: dict[str, list[dict[str, Any]]]) -> str:
    """Return what each cycle came to, one row a cycle, in Markdown."""
    lines = [
        "| seed, batch | cycle | gate: current -> candidate on the device | gate: factory -> candidate on base | "
        "test | training, peak memory | processor |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, entries in seeds.items():
        for entry in entries:
            decision, training = entry.get("decision") or {}, entry.get("training")
            cells = [
                f"{seed}, {entry['batch']}",
                entry.get("outcome") or "factory",
                _gate(decision.get("device")),
                _gate(decision.get("base")),
                f"{bits(entry, 'test').mean():.1%}",
                f"{training['seconds']:.0f} s, {training['peak_rss_mib']:.0f} MiB" if training else "",
                f"{entry['processor_seconds']:.0f} s" if "processor_seconds" in entry else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def comparison_table(seeds: dict[str, list[dict[str, Any]]], at_once: dict[str, dict[str, Any]]) -> str:
    """Return the last release against the factory's, and training at once against both, in Markdown."""
    lines = [
        "| set | seed | factory | last release | difference | gains, losses | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in SETS.items():
        for seed, entries in seeds.items():
            before, after = bits(entries[0], name), bits(entries[-1], name)
            gains, losses = int((after > before).sum()), int((after < before).sum())
            lines.append(
                f"| {title} ({len(before)}) | {seed} | {before.mean():.2%} | {after.mean():.2%} | "
                f"{after.mean() - before.mean():+.2%} | {gains}, {losses} | {mcnemar(gains, losses):.3f} |"
            )
        lines.append(_pooled_row(title, [(entries[0], entries[-1]) for entries in seeds.values()], name))
    pairs = [(entries[0], entries[-1]) for entries in seeds.values()]
    lines.append(_pooled_row("test and base", pairs, "test", "base"))
    lines.append(_pooled_row("all three", pairs, *SETS))
    if at_once:
        lines += ["", "| set | | factory | trained at once | difference | | p |", "|---|---|---|---|---|---|---|"]
        pairs = [(seeds[seed][0], at_once[seed]) for seed in at_once]
        lines += [_pooled_row(title, pairs, name) for name, title in SETS.items()]
        lines.append(_pooled_row("all three", pairs, *SETS))
    return "\n".join(lines)


def bits(entry: dict[str, Any], name: str) -> np.ndarray:
    """Return which sentences of a set a release answers rightly, as 0.0 and 1.0."""
    return np.array([int(digit) for digit in entry["right"][name]], float)


def mcnemar(gains: int, losses: int) -> float:
    """Return the two-sided p-value of McNemar's exact test."""
    n, k = gains + losses, min(gains, losses)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def pooled(differences: np.ndarray) -> tuple[float, float, float]:
    """Return mean, half the 95 % interval and two-sided p-value of differences [seeds, sentences]."""
    sentences = differences.mean(axis=0)
    mean, error = float(sentences.mean()), float(sentences.std(ddof=1) / math.sqrt(len(sentences)))
    return mean, 1.96 * error, math.erfc(abs(mean) / error / math.sqrt(2)) if error else 1.0


def draw(seeds: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw accuracy over cycles: mean and range of the seeds, and the factory release as a dotted line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, title in SETS.items():
        values = np.array([[bits(entry, name).mean() for entry in entries] for entries in seeds.values()]) * 100
        batches, colour = np.arange(values.shape[1]), COLOURS[name]
        axes.fill_between(batches, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
        axes.plot(batches, values.mean(axis=0), color=colour, marker="o", markersize=4, label=title)
        axes.axhline(values[:, 0].mean(), color=colour, linestyle=":", linewidth=1)
    axes.set(xlabel="cycles (0: the factory release; dotted)", ylabel="accuracy, %", xticks=batches)
    axes.set_title(f"HWU64, current release: mean and range of {len(seeds)} seeds", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path)


def _pooled_row(title: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]], *names: str) -> str:
    before, after = (
        np.stack([np.concatenate([bits(pair[side], name) for name in names]) for pair in pairs]) for side in (0, 1)
    )
    mean, half, p = pooled(after - before)
    size = before.shape[1]
    return (
        f"| {title} ({size}) | {len(pairs)} seeds | {before.mean():.2%} | {after.mean():.2%} | "
        f"{mean:+.2%} +- {half:.2%} | | {p:.4f} |"
    )


def _gate(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return ""
    return f"{figures['reference_accuracy']:.1%} -> {figures['candidate_accuracy']:.1%} of {figures['examples']}"


if __name__ == "__main__":
    sys.exit(main())
