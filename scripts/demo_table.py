"""Prints the demo's one table from the JSON documents of its steps, and fails where a claim does not hold.

    python scripts/demo_table.py build/demo

Started with the device's interpreter, in which training ran. Standard library only. Exit code: 0, or 1 when
training exceeded the budget, did not beat the bag of words, or could have used torch.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
from pathlib import Path
from typing import Any

LEAST_GAIN = 0.05  # how far the trained model must be above the bag of words, as a share of the test sentences
NOT_ON_A_DEVICE = ("torch", "transformers", "onnx")


def main(arguments: list[str]) -> int:
    """Print table and predictions; return the exit code."""
    out = Path(arguments[0])
    names = ("data", "export", "before", "train", "after", "predict")
    documents = {name: json.loads((out / f"{name}.json").read_text()) for name in names}
    print(format_table(table_rows(documents, step_seconds(out / "run" / "log.jsonl"))))
    print()
    for prediction in documents["predict"]["predictions"]:
        print(f"{prediction['label']:<16} {prediction['probability']:5.1%}  {prediction['text']}")
    print(f"\npicture {out}/training.png   model for your application {out}/model   run {out}/run")
    failures = check_claims(documents)
    for failure in failures:
        print(f"demo: FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


def step_seconds(log: Path) -> float:
    """Return the median time of an optimiser step in s, from a run log."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return statistics.median(event["seconds"] for event in events if event["event"] == "step")


def table_rows(documents: dict[str, Any], seconds: float) -> list[tuple[str, str, str]]:
    """Return (what, value, remark) of each row."""
    data, export, before, train, after = (documents[name] for name in ("data", "export", "before", "train", "after"))
    trained, total = train["trained_parameters"], export["model_parameters"]
    chosen, plan = export["choice"]["chosen"], train["plan"]
    tested = f"released model; {after['examples']} test sentences throughout"
    below = f"{chosen['below_best']:.3f} +- {chosen['below_best_error']:.3f} below the best in Matthews' correlation"
    best = f"the best of the {len(export['choice']['rows'])} that were tried"
    compared = f"{chosen['pooling']} pooling; {below if chosen['below_best'] else best}"
    return [
        ("rung of the ladder", chosen["rung"], compared),
        ("work of a run", f"{chosen['job_work']:.3f}", "full fine-tuning = 1, counted"),
        ("trained parameters", f"{trained:,}", f"{trained / total:.1%} of {total:,}"),
        ("step time", f"{seconds:.3f} s", f"median of {train['steps']} steps of {plan['batch_size']} sentences"),
        ("peak memory", f"{train['peak_rss_mib']:.0f} MiB", f"VmHWM of training; budget {train['budget_mib']:.0f} MiB"),
        ("accuracy, bag of words", f"{data['baseline']['test_accuracy']:.1%}", "the same training sentences"),
        ("accuracy before", f"{before['accuracy']:.1%}", f"as exported, after {export['priming_steps']} priming steps"),
        ("accuracy after", f"{after['accuracy']:.1%}", tested),
    ]


def format_table(rows: list[tuple[str, str, str]]) -> str:
    """Return the rows with aligned columns between two rules."""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    rule = "-" * (sum(widths) + 4)
    lines = [f"{what:<{widths[0]}}  {value:>{widths[1]}}  {remark}" for what, value, remark in rows]
    return "\n".join([rule, *lines, rule])


def check_claims(documents: dict[str, Any]) -> list[str]:
    """Return a sentence for each claim of the demo that does not hold."""
    train, failures = documents["train"], []
    if train["peak_rss_mib"] > train["budget_mib"]:
        failures.append(
            f"training peaked at {train['peak_rss_mib']} MiB, above its budget of {train['budget_mib']} MiB"
        )
    baseline, after = documents["data"]["baseline"]["test_accuracy"], documents["after"]["accuracy"]
    if after < baseline + LEAST_GAIN:
        failures.append(f"accuracy {after:.1%} is not {LEAST_GAIN:.0%} above that of the bag of words, {baseline:.1%}")
    if after <= documents["before"]["accuracy"]:
        failures.append("training did not improve the exported model")
    present = [name for name in NOT_ON_A_DEVICE if importlib.util.find_spec(name) is not None]
    if present:
        failures.append(f"the environment that trained holds {', '.join(present)}")
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
