"""Released models and the documents of a state directory, as an application, `releases` and `status` find them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

from edge_far.daemon.notes import Notes
from edge_far.daemon.releases import Releases
from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store.examples import Source, Store
from edge_far.daemon.store.journal import FINISHED, Journal
from edge_far.texts.data import Example
from tests.fuzz.judge import Bounds, problem_of, run
from tests.fuzz.mutate import TEXTS, mutate_bytes, mutate_json
from tests.fuzz.targets.base import Case, Target

__all__ = ["ReleasedModel", "StateDocuments"]

FIGURES = {"candidate_accuracy": 0.875, "reference_accuracy": 0.85, "examples": 120}


def merge(bundle: Path, out: Path) -> None:
    """Write a bundle's model as any application gets it."""
    bounds = Bounds(frozenset({0}), (out.parent,))
    problem = problem_of(run(["merge", bundle, "--out", out], bounds), bounds)
    if problem is not None:
        raise RuntimeError(f"the good model was not written: {problem}")


class ReleasedModel(Target):
    """A directory of `edge-far merge`: labels.json, release.json, tokenizer.json."""

    name = "released model"
    codes = frozenset({0, 65, 66, 78})  # 78: --max-seq-len beyond what the model reads
    links = True

    def prepare(self, good: Path) -> None:
        """Merge a bundle."""
        merge(self.bundle, good / "model")

    def make(self, chance: Random) -> Case:
        """Return a model with one document changed."""
        name = chance.choice(("labels.json", "release.json", "tokenizer.json"))
        texts = (
            "w1 w2",
            "w3 " * chance.choice((1, 50, 200)),
            chance.choice([text for text in TEXTS if "\0" not in text and "\ud800" not in text]),
        )
        text = chance.choice([text for text in texts if text.strip() and not text.startswith("-")] or ["w1"])
        more = chance.choice(((), ("--top", "3"), ("--max-seq-len", "4000")))
        return Case(
            {f"model/{name}": mutate_json(self.read(f"model/{name}"), chance)}, ("predict", "{work}/model", text, *more)
        )


class StateDocuments(Target):
    """manifest.json of a release, status.json, notes.json, the lock, details of a cycle; and the link `current`."""

    name = "state"
    codes = frozenset({0, 65, 66, 69})
    silent = frozenset({69})  # status --check
    outputs = ("state",)

    def prepare(self, good: Path) -> None:
        """Make a state directory with three releases, a store with a cycle, and notes."""
        state = StateDirectory(good / "state")
        state.prepare()
        merge(self.bundle, good / "source")
        releases = Releases(state.model)
        with Store(state.store) as store:
            _releases_and_cycle(good / "source", releases, store)
        shutil.rmtree(good / "source")
        notes = Notes(state.notes)
        notes.tell("error", "a problem", "advice")
        notes.tell("data", "examples were set aside", None)
        settings = {"profile": "rpi4-2gb", "memory_limit_mib": 300.0}
        state.status.write_text(json.dumps({"daemon": {"settings": settings}}))

    def make(self, chance: Random) -> Case:
        """Return a state directory with one document changed."""
        command = chance.choice(
            (("releases",), ("rollback",), ("status",), ("status", "--check"), ("store", "quarantine"))
        )
        arguments = (*command, "--state", "{work}/state")
        ids = sorted(path.name for path in (self.good / "state/model/releases").iterdir() if path.name[0] != ".")
        kind = chance.randrange(5)
        if kind == 0:
            return Case({"state/notes.json": mutate_json(self.read("state/notes.json"), chance)}, arguments)
        if kind == 1:
            return Case({"state/status.json": mutate_json(self.read("state/status.json"), chance)}, arguments)
        if kind == 2:
            return Case({"state/lock": mutate_bytes(b"123\n", chance)}, arguments)
        id = chance.choice(ids)
        name = f"state/model/releases/{id}/manifest.json"
        if kind == 3 and command[0] == "rollback":
            arguments = (*arguments, "--to", chance.choice((*ids, "000009-00000000", "x", "../..")))
        return Case({name: _changed_manifest(self.read(name), chance)}, arguments)


def _changed_manifest(good: bytes, chance: Random) -> bytes:
    """Change the facts as often as all else: they are nobody's hash, and `status` prints them."""
    document = json.loads(good)
    if chance.random() < 0.5:
        return mutate_json(good, chance)
    facts = mutate_json(json.dumps(document["facts"]).encode(), chance)
    head = json.dumps({**document, "facts": "@@"}).encode()
    return head.replace(b'"@@"', facts)


def _releases_and_cycle(source: Path, releases: Releases, store: Store) -> None:
    current = None
    for number, kind in enumerate(("factory", "cycle", "cycle")):
        (source / "labels.json").write_text(json.dumps([f"label-{n}" for n in range(5)] + [" "] * number))
        id = releases.next_id(source)
        facts = {"kind": kind, "held_out": FIGURES, "base": FIGURES} if number else {"kind": kind}
        releases.publish(id, source, replaces=current, facts=facts)
        releases.switch(id, expected=current)
        current = id
    with store.transaction():
        store.add(Example("w1", None, "label-0"), Source("a", 1))
    journal = Journal(store)
    training = {"steps": 3, "seconds": 2.0, "peak_rss_mib": 80.0, "budget_mib": 300}
    row = journal.start("training", change=1, base=str(current), details={"examples": 1, "training": training})
    journal.update(row, state=FINISHED, outcome="rejected", details={"reason": "worse"})
