"""Spool files: every line is in the store exactly once, or in quarantine, also when the daemon is cut off meanwhile."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

from edge_far.daemon.intake.ingest import Ingestion, IngestReport
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.identity import example_key
from tests.fuzz.judge import call, problem_of
from tests.fuzz.mutate import mutate_json, mutate_lines
from tests.fuzz.targets.base import Case, Target
from tests.fuzz.targets.texts import random_record, random_text

__all__ = ["SpoolFiles"]

LABELS = tuple(f"label-{number}" for number in range(5))
MAX_LINE_BYTES = 1 << 20


class CutOff(Exception):
    """The daemon ends here."""


class SpoolFiles(Target):
    """JSONL files in a spool directory, ingested in two halves."""

    name = "spool"
    codes = frozenset({0})
    outputs = ("",)

    def make(self, chance: Random) -> Case:
        """Return one to three files; the arguments say after how many batches the daemon is cut off."""
        files = {}
        for number in range(chance.randrange(1, 4)):
            lines = [json.dumps(_record(chance)) for _ in range(chance.randrange(1, 12))]
            content = ("\n".join(lines) + "\n").encode()
            files[f"spool/{number:03d}.jsonl"] = mutate_lines(content, chance, mutate_json)
        return Case(files, (str(chance.randrange(6)),))

    def problem(self, case: Case) -> str | None:
        """Ingest, cut off once, and compare store and quarantine with what the lines say."""
        with self.laid(case):
            report = IngestReport()
            ending = call("ingest", lambda: self._ingest(int(case.arguments[0]), report), self.bounds)
            return problem_of(ending, self.bounds) or self._difference(case)

    def _ingest(self, ticks: int, report: IngestReport) -> None:
        left = [ticks]

        def tick() -> None:
            left[0] -= 1
            if left[0] == 0:
                raise CutOff

        with Store(self.work / "store.sqlite3") as store, suppress(CutOff):
            Ingestion(self.work / "spool", store, labels=LABELS, tick=tick).run()
        with Store(self.work / "store.sqlite3") as store:
            Ingestion(self.work / "spool", store, labels=LABELS).run()

    def _difference(self, case: Case) -> str | None:
        expected: dict[bytes, str] = {}  # texts that differ in blanks or case alone are one example
        predicted: set[bytes] = set()  # a label for the prediction's id may be a later one for the same text
        bad = other = 0
        for content in (case.files[name] for name in sorted(case.files)):
            for line in content.split(b"\n"):
                kind, record = _kind(line)
                bad += kind == "bad"
                other += kind == "other"
                if kind == "good":
                    expected[example_key(record["text"])] = record["label"]
                elif isinstance(record, dict) and isinstance(record.get("text"), str):
                    predicted.add(example_key(record["text"].encode("utf-8", "replace").decode()))
        with Store(self.work / "store.sqlite3") as store:
            stored = [*store.examples(held_out=False), *store.examples(held_out=True)]
            quarantined = store.counts().quarantined
        found = {example_key(each.example.text, each.example.text_pair): each.example.label for each in stored}
        wrong = {key for key, label in expected.items() if found.get(key) != label}
        if missing := [key for key in wrong if key not in found or key not in predicted]:
            return f"{len(missing)} of {len(expected)} good examples are missing or have another label"
        if not bad <= quarantined <= bad + other:
            return f"{quarantined} lines in quarantine; {bad} are bad, {other} more may be"
        if not len(expected) <= len(stored) <= len(expected) + other:
            return f"{len(stored)} examples in the store; {len(expected)} are good, {other} more may be"
        return None


def _record(chance: Random) -> dict[str, Any]:
    record: dict[str, Any] = random_record(chance)
    record.pop("text_pair", None)
    kind = chance.randrange(8)
    if kind == 0:
        return {"id": str(chance.randrange(3)), "text": random_text(chance), "prediction": record["label"]}
    if kind == 1:
        return {"id": str(chance.randrange(3)), "label": record["label"]}
    if kind == 2:
        return {"id": str(chance.randrange(3)), "feedback": chance.choice(("correct", "wrong"))}
    return record


def _object(pairs: list[tuple[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return an object; the names of the outermost one, which is read last, are left in `names`."""
    names[:] = [name for name, _ in pairs]
    return dict(pairs)


def _kind(line: bytes) -> tuple[str, Any]:
    """Return 'empty', 'good' (an example that must be stored), 'bad' (must be quarantined) or 'other', and the record.

    The rules are written anew here, for what is beyond doubt; the rest is 'other'.
    """
    line = line.removesuffix(b"\r")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return "bad", None
    if not text.strip().strip("\ufeff"):
        return ("other" if text.strip() else "empty"), None
    if len(line) > MAX_LINE_BYTES or b"\0" in line:
        return "bad", None
    try:
        names: list[str] = []
        record = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, names))
    except (ValueError, RecursionError):
        return ("other" if text.startswith("\ufeff") else "bad"), None
    if not isinstance(record, dict):
        return "bad", None
    if len(set(names)) < len(names):
        return ("bad" if any(names.count(name) > 1 for name in ("text", "label")) else "other"), record
    plain = set(record) == {"text", "label"} and all(isinstance(value, str) for value in record.values())
    if not plain or any(0xD800 <= ord(letter) < 0xE000 or letter == "\0" for letter in record["text"]):
        return "other", record
    if not record["text"].strip():
        return "bad", record
    return ("good" if record["label"] in LABELS else "other"), record
