"""Bundles: manifest.json, and the documents and arrays whose hash it holds (set right, as a wrong tool would)."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from random import Random

from tests.fuzz.judge import Ending
from tests.fuzz.mutate import mutate_json, mutate_safetensors
from tests.fuzz.targets.base import Case, Target

__all__ = ["BundleDocuments", "BundleTokenizer", "Learners", "ManifestFile", "rehashed"]

USES = (
    ("predict", "{work}", "w1 w2"),
    ("plan", "{work}", "--no-probe"),
    ("merge", "{work}", "--out", "{work}/out"),
    ("eval", "{work}", "--data", "{work}/data.jsonl"),
    ("train", "{work}", "--train", "{work}/data.jsonl", "--out", "{work}/out", "--no-probe", "--max-steps", "1"),
)
EXAMPLES = "".join(json.dumps({"text": f"w{n} w{n + 7} w3", "label": f"label-{n % 5}"}) + "\n" for n in range(10))


def rehashed(manifest: bytes, name: str, content: bytes) -> bytes:
    """Return the manifest with another hash and size of one file."""
    document = json.loads(manifest)
    document["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return json.dumps(document).encode()


class _Bundle(Target):
    links = True
    uses = USES

    def prepare(self, good: Path) -> None:
        """Copy a bundle, and put data beside it."""
        shutil.copytree(self.bundle, good, dirs_exist_ok=True)
        (good / "data.jsonl").write_text(EXAMPLES)

    def with_file(self, name: str, content: bytes, chance: Random) -> Case:
        """Return a bundle in which one file has changed, and its hash with it."""
        manifest = rehashed(self.read("manifest.json"), name, content)
        return Case({name: content, "manifest.json": manifest}, chance.choice(self.uses))


class ManifestFile(_Bundle):
    """manifest.json itself; a budget or a profile that it names may be refused as a setting."""

    name = "manifest"
    codes = frozenset({0, 65, 78})

    def make(self, chance: Random) -> Case:
        """Return a changed manifest."""
        return Case({"manifest.json": mutate_json(self.read("manifest.json"), chance)}, chance.choice(self.uses))


class Learners(_Bundle):
    """learners.safetensors, in the bundle or given by --learners."""

    name = "learners"
    codes = frozenset({0, 65, 78})  # 78: numbers so large that training diverges

    def make(self, chance: Random) -> Case:
        """Return changed arrays."""
        content = mutate_safetensors(self.read("learners.safetensors"), chance)
        if chance.random() < 0.3:
            given = ("--learners", "{work}/given.safetensors")
            return Case({"given.safetensors": content}, (*self.uses[-1], *given))
        return self.with_file("learners.safetensors", content, chance)


class BundleTokenizer(_Bundle):
    """tokenizer.json of a bundle."""

    name = "tokenizer"
    uses = (USES[0], USES[3], USES[4])

    def make(self, chance: Random) -> Case:
        """Return a changed tokenizer."""
        return self.with_file("tokenizer.json", mutate_json(self.read("tokenizer.json"), chance), chance)


class BundleDocuments(_Bundle):
    """release.json, constants.json and selection.json of a bundle."""

    name = "bundle documents"

    def make(self, chance: Random) -> Case:
        """Return a bundle with one document changed."""
        name = chance.choice(("portable/release.json", "portable/constants.json", "selection.json"))
        return self.with_file(name, mutate_json(self.read(name), chance), chance)

    def wrong_result(self, case: Case, ending: Ending) -> str | None:
        """A released directory must hold weights of the size that the graph reads."""
        released = self.work / "out" / "weights.bin"
        if ending.code or case.arguments[0] != "merge":
            return None
        size, whole = released.stat().st_size, (self.good / "portable" / "weights.bin").stat().st_size
        return None if size <= whole else f"weights.bin has {size} bytes, the bundle's {whole}"
