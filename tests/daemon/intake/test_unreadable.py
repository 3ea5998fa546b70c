"""What a child could not read goes into quarantine line by line, once, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

from edge_far.daemon.intake.unreadable import quarantine_unreadable, read_left_out
from edge_far.daemon.store.examples import Source, Store
from edge_far.texts.data import Example

TEXTS = ["turn it on", "say <ent>", "turn it off"]


def test_only_the_lines_that_were_left_out(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    sample = {"text": "a host's <ent>", "text_pair": "b", "label": "l"}
    lines = [{"text": text, "label": "l"} for text in TEXTS] + [sample]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Store(tmp_path / "store.sqlite3", held_out_share=0.0) as store:
        with store.transaction():
            for number, text in enumerate(TEXTS, start=1):
                store.add(Example(text, None, "l"), Source("a.jsonl", number))
            store.replace_replay([Example("a host's <ent>", "b", "l"), Example("other", None, "l")], [])
        left_out = {"1": "has the token '<ent>'", "3": "has the token '<ent>'"}
        assert quarantine_unreadable(store, left_out, path) == 1
        assert [s.example.text for s in store.examples(held_out=False)] == [TEXTS[0], TEXTS[2]]
        assert [example.text for example in store.replay(held_out=False)] == ["other"]
        ((source, reason, line),) = store.quarantined()
        assert (source, reason) == (Source("a.jsonl", 2), "the text has the token '<ent>'")
        assert json.loads(line) == {"text": "say <ent>", "label": "l"}
        assert quarantine_unreadable(store, left_out, path) == 0
        assert len(store.quarantined()) == 1
        assert quarantine_unreadable(store, {}, tmp_path / "none") == 0


def test_a_child_that_left_no_word(tmp_path: Path) -> None:
    path = tmp_path / "left_out.json"
    assert read_left_out(path) == {}
    for content in ("", "[1]", "{"):
        path.write_text(content)
        assert read_left_out(path) == {}
    path.write_text('{"7": "gives no token"}')
    assert read_left_out(path) == {"7": "gives no token"}
