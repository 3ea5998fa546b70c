"""docs/explain/when-not.md: a figure that stands beside a link to the lab is one of that page."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "explain" / "when-not.md"


def test_figures_are_those_of_the_pages_that_are_linked() -> None:
    checked = 0
    for block in re.split(r"\n(?=- )|\n\n", PAGE.read_text()):
        linked = re.findall(r"\((\.\./lab/[\w-]+\.md)[^)]*\)", block)
        words = re.sub(r"\]\([^)]*\)", "", block)
        figures = re.findall(r"\d+\.\d+(?: ± \d\.\d+)?|\d{1,3}(?:,\d{3})+|\b\d{4}\b", words)
        source = "\n".join((PAGE.parent / page).read_text() for page in linked)
        assert not [figure for figure in figures if figure not in source], block
        checked += len(figures)
    assert checked >= 16
