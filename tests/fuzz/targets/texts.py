"""Data files and standard input: JSONL, CSV and TSV as `eval`, `predict` and `plan` read them."""

from __future__ import annotations

import csv
import io
import json
from random import Random

from tests.fuzz.judge import Ending
from tests.fuzz.mutate import mutate_bytes, mutate_json, mutate_lines
from tests.fuzz.targets.base import Case, Target

__all__ = ["CsvFile", "JsonlFile", "StandardInput", "TsvFile", "random_text"]

COMMANDS = (
    ("eval", "{bundle}", "--data", "{work}/data"),
    ("predict", "{bundle}", "--data", "{work}/data"),
    ("plan", "{bundle}", "--no-probe", "--train", "{work}/data"),
)
WORDS = [f"w{number}" for number in range(95)]
ODD = (
    *(
        "\u00e9",
        "\U0001f600",
        "\u202e",
        "a,b",
        '"',
        "tab\there",
        "\x85",
        "\u2028",
        "\x1c",
        "\ufb01",
        "\u0301" * 20,
    ),
    *("w" * 3000, "\u017f", "\u00a0"),
)


def random_text(chance: Random) -> str:
    """Return a text of words the tiny bundles know, sometimes with one that is odd."""
    words = [chance.choice(WORDS) for _ in range(chance.randrange(1, 12))]
    if chance.random() < 0.3:
        words.insert(chance.randrange(len(words) + 1), chance.choice(ODD))
    return " ".join(words)


def random_record(chance: Random) -> dict[str, object]:
    """Return an example, sometimes a pair, with one of the tiny bundles' labels."""
    record: dict[str, object] = {"text": random_text(chance), "label": f"label-{chance.randrange(5)}"}
    if chance.random() < 0.2:
        record["text_pair"] = random_text(chance)
    return record


class _DataFile(Target):
    suffix = ""

    def arguments(self, chance: Random) -> tuple[str, ...]:
        return tuple(word.replace("/data", f"/data{self.suffix}") for word in chance.choice(COMMANDS))

    def wrong_result(self, case: Case, ending: Ending) -> str | None:
        """No example may be lost or doubled."""
        if ending.code != 0 or case.arguments[0] == "plan":
            return None
        document = ending.document
        found = len(document["predictions"]) if case.arguments[0] == "predict" else document["examples"]
        (content,) = case.files.values()
        expected = self.count(content)
        return None if found == expected else f"{found} examples of {expected}"

    def count(self, content: bytes) -> int:
        """Return how many examples a file that was accepted holds."""
        raise NotImplementedError


class JsonlFile(_DataFile):
    """A JSONL file."""

    name, suffix = "jsonl", ".jsonl"

    def make(self, chance: Random) -> Case:
        """Return a file with one to some lines changed."""
        lines = [json.dumps(random_record(chance)) for _ in range(chance.randrange(1, 9))]
        content = ("\n".join(lines) + "\n").encode()
        if chance.random() < 0.9:
            content = mutate_lines(content, chance, mutate_json)
        return Case({f"data{self.suffix}": content}, self.arguments(chance))

    def count(self, content: bytes) -> int:
        """Count the lines that hold anything."""
        return sum(bool(line.decode("utf-8-sig").strip()) for line in content.split(b"\n"))


def _lines(content: bytes) -> list[str]:
    """Return the lines of a file, each without a byte order mark: files that were joined have more than one."""
    return [line.decode("utf-8-sig") for line in content.split(b"\n")]


class CsvFile(_DataFile):
    """A CSV file, quoted as in RFC 4180."""

    name, suffix = "csv", ".csv"

    def make(self, chance: Random) -> Case:
        """Return a table with one to some places changed."""
        return Case(
            {f"data{self.suffix}": mutate_lines(self.table(chance), chance, mutate_bytes)}, self.arguments(chance)
        )

    def table(self, chance: Random) -> bytes:
        """Return a good table."""
        records = [random_record(chance) for _ in range(chance.randrange(1, 9))]
        columns = [name for name in ("text", "text_pair", "label") if any(name in record for record in records)]
        chance.shuffle(columns)
        out = io.StringIO()
        writer = csv.DictWriter(out, columns, lineterminator=chance.choice(("\n", "\r\n")))
        writer.writeheader()
        writer.writerows(records)
        return out.getvalue().encode()

    def count(self, content: bytes) -> int:
        """Count the rows that hold anything, less the header."""
        rows = csv.reader(io.StringIO("\n".join(_lines(content)), newline=""), strict=True)
        return sum(any(cell.strip() for cell in row) for row in rows) - 1


class TsvFile(CsvFile):
    """A TSV file, in which every character stands for itself."""

    name, suffix = "tsv", ".tsv"

    def table(self, chance: Random) -> bytes:
        """Return a good table."""
        rows = ["text\tlabel"]
        for _ in range(chance.randrange(1, 9)):
            record = random_record(chance)
            text = str(record["text"]).replace("\t", " ")
            rows.append(f"{text}\t{record['label']}")
        return ("\n".join(rows) + "\n").encode()

    def count(self, content: bytes) -> int:
        """Count the lines that hold anything, less the header."""
        return sum(any(cell.strip() for cell in line.split("\t")) for line in _lines(content)) - 1


class StandardInput(Target):
    """`predict -`: a text a line."""

    name = "stdin"
    codes = frozenset({0, 64, 65})

    def make(self, chance: Random) -> Case:
        """Return lines of which some have changed."""
        lines = "".join(random_text(chance).replace("\n", " ") + "\n" for _ in range(chance.randrange(1, 6)))
        return Case(arguments=("predict", "{bundle}", "-"), stdin=mutate_lines(lines.encode(), chance, mutate_bytes))
