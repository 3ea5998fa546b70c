"""The house keeps its shape: small wings, short rooms, a word at each wing's door.

Who may import whom is held by `make lint`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edge_far"
WINGS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if "device_profiles" not in path.parts)
MOST_ROOMS = 9
MOST_LINES = 350


def name_of(wing: Path) -> str:
    return str(wing.relative_to(PACKAGE.parent))


@pytest.mark.parametrize("wing", WINGS, ids=name_of)
def test_a_wing_is_small_and_says_what_it_is(wing: Path) -> None:
    rooms = [path for path in wing.glob("*.py") if path.name != "__init__.py"]
    assert len(rooms) <= MOST_ROOMS
    assert wing.name not in {room.stem for room in rooms}
    assert ast.get_docstring(ast.parse((wing / "__init__.py").read_text()))


def test_no_room_is_long() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}
