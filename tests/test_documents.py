"""README and docs against the code: commands, exit codes, links, names of files, and no more than a reader can take."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from edge_far import cli, errors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
# The lab's diaries tell of commits of their time.
LIVING = [document for document in DOCUMENTS if document.parent != DOCS / "lab"]
CODE = [
    path
    for folder in ("edge_far", "tests", "scripts", "benchmarks", "deploy", "device_profiles")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".sh", ".yaml", ".service") and path.is_file()
]
README_LINES = 120


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@cache
def prose(document: Path) -> str:
    """Return a document without its fenced and indented blocks, in which nothing is a link or a heading."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)


@cache
def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(name: str) -> bool:
    return (ROOT / name).exists() or (ROOT / "edge_far" / name).exists()


def test_the_readme_lists_every_command() -> None:
    (table,) = re.findall(r"## Commands\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    listed = re.findall(r"`(?:edge-far )?(\w+)`", " ".join(cells))
    assert set(cli.COMMANDS) <= set(listed)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_the_reference_lists_every_exit_code() -> None:
    text = (DOCS / "reference" / "exit-codes-and-json.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", text, re.MULTILINE)
    listed = {name: int(code) for code, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {name: getattr(errors, name).exit_code for name in errors.__all__}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(#[^)\s]*)?\)", prose(document)):
        linked = document.parent / target if target else document
        assert linked.exists(), target
        if anchor:
            assert anchor[1:] in anchors(linked), f"{target}{anchor}"


def test_every_document_is_reached_from_the_index() -> None:
    found = {DOCS / "index.md"}
    waiting = list(found)
    while waiting:
        document = waiting.pop()
        for target in re.findall(r"\]\(([^)#:\s]+\.md)(?:#[^)\s]*)?\)", prose(document)):
            linked = (document.parent / target).resolve()
            if linked not in found:
                found.add(linked)
                waiting.append(linked)
    assert set(DOCS.rglob("*.md")) <= found


@pytest.mark.parametrize("document", LIVING, ids=name_of)
def test_files_and_folders_that_are_named_exist(document: Path) -> None:
    names = set(re.findall(r"`([\w./-]+\.(?:py|sh|md))`", prose(document)))
    if document in (DOCS / "design.md", DOCS / "explain" / "walk.md"):
        names |= set(re.findall(r"`([\w./-]+/)`", prose(document)))
        assert len(names) > 20
    assert not sorted(name for name in names if not exists(name))


def test_the_map_has_every_wing() -> None:
    table = (DOCS / "design.md").read_text().split("\n## Wings and rooms\n")[1].split("\n## ")[0]
    rows = "\n".join(line for line in table.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`([\w/]+/)`", rows))
    wings = {f"{path.parent.relative_to(ROOT / 'edge_far')}/" for path in (ROOT / "edge_far").rglob("*/__init__.py")}
    assert named == wings


def test_the_picture_of_the_house_has_the_floors_of_the_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    floors = [re.findall(r"\w+", layer) for layer in settings["layers"]]
    picture = (DOCS / "explain" / "pictures" / "house.svg").read_text()
    rooms = re.findall(r'<text class="room" x="[\d.]+" y="(\d+)"[^>]*>(\w+)<', picture)
    drawn: dict[int, list[str]] = {}
    for height, room in rooms:
        drawn.setdefault(int(height), []).append(room)
    assert [sorted(drawn[height]) for height in sorted(drawn)] == [sorted(floor) for floor in floors]


def test_tests_that_the_tables_of_faults_name_exist() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", prose(DOCS / "lab" / "faults.md")))
    tests = {name for name in named if Path(name).name.startswith("test_")}
    assert len(tests) > 40
    assert not sorted(name for name in tests if not (ROOT / "tests" / name.removeprefix("tests/")).is_file())


def test_documents_that_the_code_names_exist() -> None:
    named = {
        (name_of(path), name)
        for path in CODE
        for name in re.findall(r"\bdocs/[\w./-]+\.(?:md|png)\b", path.read_text())
    }
    assert len(named) > 10
    assert not sorted((path, name) for path, name in named if not (ROOT / name).is_file())


@pytest.mark.parametrize("title", ["One batch of texts", "One night of adaptation"])
def test_a_walk_goes_through_doors_that_exist_and_through_none_twice(title: str) -> None:
    walk = (DOCS / "explain" / "walk.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = re.findall(r"^\d+\. .*$", walk, re.MULTILINE)
    steps = re.findall(r"^\d+\. `([\w/]+\.py)`, `(\w+)`: ", walk, re.MULTILINE)
    assert len(steps) == len(lines) > 20
    for room, door in steps:
        text = (ROOT / "edge_far" / room).read_text()
        assert re.search(rf"^ *(?:def|class) {door}\b", text, re.MULTILINE), f"{room}: {door}"
    assert len(set(steps)) == len(steps)
