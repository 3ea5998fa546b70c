"""docs/boards/ against what it is of: the plan matrix, the profiles, and the lines that doctor prints there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from edge_far.doctor.examination import examine, subject_below
from edge_far.profile.document import builtin_names, load_profile
from tests.doctor.boards import BOARDS, NIGHT_S, Tree, plant

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "boards").glob("*.md"))
MATRIX = (ROOT / "docs" / "lab" / "plan-matrix.md").read_text()
OFF: Tree = {"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n", "proc/cgroups": "memory\t0\t66\t0\n"}
PLAIN = "console=tty1 root=PARTUUID=1234abcd-02 rootwait\n"
NO_SWAP = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def profiles_of(page: str) -> list[str]:
    return re.findall(r"<!-- plan-matrix: ([\w-]+) -->", page)


def page_of(profile: str) -> str:
    (text,) = [text for page in PAGES if profile in profiles_of(text := page.read_text())]
    return text


def lines_to_type(text: str) -> list[str]:
    return [line.strip() for line in re.findall(r"^ {4,}(sudo .*)$", text, re.MULTILINE)]


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("board_tables", ROOT / "scripts" / "board_tables.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_board_has_one_page() -> None:
    told = [name for page in PAGES for name in profiles_of(page.read_text())]
    assert sorted(told) == sorted(set(builtin_names()) - {"workstation"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_are_those_of_the_plan_matrix(page: Path) -> None:
    assert tables().with_tables(page.read_text()) == page.read_text(), "run: python scripts/board_tables.py"
    assert page.read_text().count(tables().OF) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_cell_of_a_table_is_a_cell_of_the_matrix(page: Path) -> None:
    """Read by itself, without the script that writes it."""
    for profile, table in re.findall(r"<!-- plan-matrix: ([\w-]+) -->\n(.*?)<!-- end -->", page.read_text(), re.DOTALL):
        rows = [re.sub(r"no \(needs (\d+)\)", r"no: \1", row).split("|")[2:-1] for row in table.strip().splitlines()]
        of_matrix = re.findall(rf"^\| {profile} +\|.*$", MATRIX, re.MULTILINE)
        assert len(of_matrix) == len(rows) - 2 == 4
        for row, wanted in zip(rows[2:], of_matrix, strict=True):
            assert [cell.strip() for cell in row] == [cell.strip() for cell in wanted.split("|")[4:-1]]


@pytest.mark.parametrize("name", [name for name in BOARDS if name != "workstation"])
def test_figures_of_the_profile_are_told(name: str) -> None:
    profile, text = load_profile(name), page_of(name)
    assert re.search(rf"`{name}`\D*\b{profile.memory.budget_mib}\b", text)
    heat = profile.thermal
    pause, resume = f"{heat.pause_above_celsius:g}", f"{heat.resume_below_celsius:g}"
    (said,) = re.findall(r"^- \*\*Cooling\*\*:.*?\n(?=- |\n)", text, re.MULTILINE | re.DOTALL)
    assert {pause, resume} <= set(re.findall(r"\d+", said))
    assert ("8-bit dot product" in text or "8-bit dot-product" in text) and "**Nothing was run on a " in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_to_type_is_what_doctor_says(page: Path, tmp_path: Path) -> None:
    """On the trees of the page's boards, with everything off that the page switches on."""
    said = set()
    for name in profiles_of(page.read_text()):
        tree = {**BOARDS[name], **OFF, "proc/pressure/memory": None, "proc/swaps": NO_SWAP}
        tree |= {"boot/firmware/cmdline.txt": PLAIN} if name.startswith("rpi") else {}
        cores = [key for key in tree if key.endswith("scaling_max_freq")]
        tree |= dict.fromkeys(cores, "900000\n") if name.startswith("jetson") else {}
        said |= {found.todo for found in examine(subject_below(plant(tree, tmp_path / name), now_s=NIGHT_S))}
    lines = lines_to_type(page.read_text())
    assert lines and set(lines) <= said
