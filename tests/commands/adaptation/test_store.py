"""`edge-far store`: one line an entry, whatever somebody wrote into the spool."""

from __future__ import annotations

from edge_far.commands.adaptation import store


def test_predictions_and_quarantine_are_one_line_each() -> None:
    waiting = {"id": "7", "text": "a\x1b[2J\nb", "text_pair": None, "prediction": " on"}
    pair = {"id": "8", "text": "a", "text_pair": "b\r", "prediction": None}
    assert store.render({"what": "predictions", "predictions": [waiting, pair]}).split("\n") == [
        "7".ljust(21) + "' on'".ljust(21) + r"'a\x1b[2J\nb'",
        "8".ljust(21) + "-".ljust(21) + r"a + 'b\r'",
    ]
    bad = {"file": "a.jsonl", "line": 3, "reason": "unknown label\x1b", "beginning": "{" + "\x1b\n" * 50}
    (line,) = store.render({"what": "quarantine", "lines": [bad]}).split("\n")
    assert line.startswith(r"a.jsonl:3: unknown label\x1b: '{\x1b\n") and line.isprintable() and line.endswith("...'")
