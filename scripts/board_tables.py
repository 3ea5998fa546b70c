"""Write the tables of docs/boards/ from docs/lab/plan-matrix.md: what a board's profile trains, by which method.

    python scripts/board_tables.py

A table stands between `<!-- plan-matrix: PROFILE -->` and `<!-- end -->`, what it is of between `<!-- plan-note -->`
and `<!-- end -->`. A test compares (tests/test_boards_pages.py).
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
MATRIX = DOCS / "lab" / "plan-matrix.md"
TABLE = re.compile(r"(<!-- plan-matrix: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

NOTE = re.compile(r"(<!-- plan-note -->\n).*?(<!-- end -->)", re.DOTALL)
OF = """The models' plain geometries, with a head on the first token; a head on the mean of all tokens, as `export`
gives all-MiniLM-L6-v2, takes more where blocks learn, and `edge-far plan BUNDLE --profile all` tells it of your own
bundle."""


def with_tables(text: str) -> str:
    """Return a board's page with its tables as the plan matrix says, and what they are of."""
    text = NOTE.sub(lambda found: f"{found[1]}\n{OF}\n\n{found[2]}", text)
    return TABLE.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", text)


def table(profile: str) -> str:
    """Return a profile's table, a model a row; KeyError for a profile that the matrix does not have."""
    rows: list[str] = []
    for chapter in re.split(r"^## ", MATRIX.read_text(), flags=re.MULTILINE):
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in chapter.splitlines() if line[:1] == "|"]
        if not lines or lines[0][0] != "board":
            continue
        found = {line[0]: line[3:] for line in lines}
        if profile not in found:
            raise KeyError(profile)
        if not rows:
            rows = [_row(["", *found["board"]]), "|---" + "|---:" * len(found["board"]) + "|"]
        rows.append(_row([chapter.partition(" (")[0], *map(_cell, found[profile])]))
    return "\n".join(rows) + "\n"


def _cell(told: str) -> str:
    """Return `129 / 16` as it is; `no: 472` in words."""
    return f"no (needs {told.removeprefix('no: ')})" if told.startswith("no: ") else told


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    for page in sorted((DOCS / "boards").glob("*.md")):
        page.write_text(with_tables(page.read_text()))
        print(page)
