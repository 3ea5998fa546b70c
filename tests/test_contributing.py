"""CONTRIBUTING quotes the code as it is, its board is a valid profile, and the issue forms are of GitHub's form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from edge_far import cli
from edge_far.profile.document import builtin_names, builtin_path, load_profile

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
QUOTED = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FIELDS = {"input", "textarea", "dropdown", "checkboxes", "markdown"}


@pytest.mark.parametrize(("path", "code"), QUOTED, ids=[f"{number}-{path}" for number, (path, _) in enumerate(QUOTED)])
def test_what_is_quoted_stands_in_the_file(path: str, code: str) -> None:
    assert code in (ROOT / path).read_text()


def test_each_section_has_an_example() -> None:
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    worked = [section for section in sections if section.startswith(("A board", "An encoder", "An operator", "A task"))]
    assert len(worked) == 4 and all("\n```" in section and "\n1. " in section for section in worked)
    assert TEXT.count("```python") == len(QUOTED) >= 4


def test_the_board_is_a_valid_new_profile(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (tmp_path / "rpi5-2gb.yaml").write_text(block)
    profile = load_profile(tmp_path / "rpi5-2gb.yaml")
    assert profile.name not in builtin_names()
    nearest = load_profile(builtin_path("rpi5-4gb"))
    assert profile.board.core == nearest.board.core and profile.memory.budget_mib < nearest.memory.budget_mib


def test_profiles_and_names_of_the_text_exist() -> None:
    for name in re.findall(r"`((?:device_profiles|edge_far|tests)/[\w./-]+)`", TEXT):
        assert (ROOT / name).exists(), name
    assert re.search(r"^NAMES = ", (ROOT / "tests/profile/test_document.py").read_text(), re.MULTILINE)


@pytest.mark.parametrize("form", [form for form in FORMS if form.name != "config.yml"], ids=lambda form: form.stem)
def test_a_form_is_valid_and_asks_for_the_bench(form: Path) -> None:
    document = yaml.safe_load(form.read_text())
    assert document.keys() <= {"name", "description", "title", "labels", "body"} and document["name"]
    assert len(document["name"]) >= 3 and len(document["description"]) <= 200
    fields = document["body"]
    assert {field["type"] for field in fields} <= FIELDS
    ids = [field["id"] for field in fields]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]+", id) for id in ids)
    assert all(field["attributes"]["label"] for field in fields)
    (asked,) = (field for field in fields if field["id"] == "doctor")
    assert "`edge-far doctor --bench`" in asked["attributes"]["label"] and asked["attributes"]["render"] == "text"


def test_forms_name_commands_that_exist() -> None:
    text = TEXT + "".join(form.read_text() for form in FORMS)
    named = set(re.findall(r"`edge-far (\w+)", text))
    assert {"doctor", "export", "train", "plan"} <= named <= set(cli.COMMANDS)
