"""README and docs against the code: commands, exit codes, links, and no address of a machine or registry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_far import cli, errors

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_the_readme_lists_every_command() -> None:
    (table,) = re.findall(r"## Commands\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    listed = re.findall(r"`(?:edge-far )?(\w+)`", " ".join(cells))
    assert set(cli.COMMANDS) <= set(listed)


def test_the_reference_lists_every_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    listed = {name: int(code) for code, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {name: getattr(errors, name).exit_code for name in errors.__all__}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", document.read_text()):
        linked = document.parent / target if target else document
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor[1:] in anchors, f"{target}{anchor}"


def test_files_named_in_the_design_exist() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    folders = "far|compile|texts|device|daemon|commands|profile|report|demo|bench"
    for name in set(re.findall(rf"`((?:(?:{folders}|tests|scripts|docs)/)[\w/]+\.(?:py|sh|md))`", text)):
        if name not in ("commands/X.py",):
            assert (ROOT / name).exists() or (ROOT / "edge_far" / name).exists(), name
