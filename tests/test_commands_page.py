"""docs/reference/commands.md is what scripts/commands_reference.py writes of today's parsers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from edge_far import cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "commands.md").read_text()


def test_the_page_is_what_the_parsers_say() -> None:
    spec = importlib.util.spec_from_file_location("commands_reference", ROOT / "scripts" / "commands_reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == PAGE, "run: python scripts/commands_reference.py"
    assert "%(" not in PAGE, "a default is not filled in"


def test_every_option_of_every_help_is_on_the_page() -> None:
    chapters = dict(re.findall(r"^## edge-far (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert list(chapters) == list(cli.COMMANDS)
    for command, chapter in chapters.items():
        told = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", cli_help(command).split("examples:")[0]))
        common = {"--help", "-h", "--json", "--quiet", "-q", "--verbose", "-v"}
        assert not sorted(option for option in told - common if option not in chapter), command


def cli_help(command: str) -> str:
    module = cli._module(command)
    parser = cli._Parser(prog=f"edge-far {command}", description=module.__doc__)
    module.add_arguments(parser)
    return parser.format_help()
