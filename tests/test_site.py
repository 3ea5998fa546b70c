"""The documents as a site, without building it: every page is in the navigation, links are turned as the hook says.

`make site` builds it strictly and reads what was built (scripts/docs_site/check_built.py).
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "docs_site" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks, check_built = load("hooks"), load("check_built")


def place(page: Path) -> str:
    return page.name if page.parent == ROOT else str(page.relative_to(DOCS))


def leaves(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [leaf for each in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(each)]


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(leaves(SETTINGS["nav"])) == sorted(map(place, PAGES))


def test_nothing_is_asked_of_other_servers() -> None:
    assert SETTINGS["strict"] is True and SETTINGS["theme"]["font"] is False
    assert SETTINGS["plugins"] == ["search"]
    assert not re.findall(r"https?:", (ROOT / "mkdocs.yml").read_text())


def test_every_version_is_pinned() -> None:
    lines = (DOCS / "site-requirements.txt").read_text().splitlines()
    named = [line for line in lines if line and not line.startswith("#")]
    assert {"mkdocs", "mkdocs-material"} <= {line.split("==")[0] for line in named}
    assert not [line for line in named if not re.fullmatch(r"[\w-]+==[\w.]+", line)]


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_links_of_the_site_are_to_its_pages(page: Path) -> None:
    turned = hooks.with_site_links(page.read_text(), page)
    outside_code = re.sub(r"^```(?s:.*?)^```$|^ {4}.*$", "", turned, flags=re.MULTILINE)
    for target in re.findall(r"(?<!!)\]\(([^)#:\s]+)", outside_code):
        linked = ((DOCS / place(page)).parent / target).resolve()
        assert linked.is_relative_to(DOCS), target
        assert linked.is_file() or linked.name in hooks.CARRIED, target


def test_a_link_to_a_file_that_is_not_on_the_site_becomes_its_text() -> None:
    source = DOCS / "start" / "install.md"
    text = "[the recipe](../../deploy/Containerfile), [a guide](../../CONTRIBUTING.md#x), [here](service.md)"
    assert hooks.with_site_links(text, source) == "the recipe, [a guide](../CONTRIBUTING.md#x), [here](service.md)"
    assert hooks.with_site_links("    [a](../../b.py)", source) == "    [a](../../b.py)"
    assert hooks.with_site_links("[map](docs/design.md#errors)", ROOT / "CHANGELOG.md") == "[map](design.md#errors)"


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_code_in_a_list_is_code_on_the_site_too(page: Path) -> None:
    """Markdown of a forge takes 7 columns for code in a numbered list, the site's takes 8."""
    text = re.sub(r"^```(?s:.*?)^```$", "", page.read_text(), flags=re.MULTILINE)
    assert not re.findall(r"^(?:\d+\.| {1,3}\S).*\n\n {5,7}\S.*", text, re.MULTILINE)


def test_what_a_built_page_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "style.css").write_text("@import 'https://example.org/a.css'; b { background: url(data:x) }")
    (tmp_path / "other.html").write_text("<h2 id=there>x</h2>")
    (tmp_path / "index.html").write_text(
        "<link href=style.css><script src=//example.org/a.js></script><a href=https://example.org>said, not loaded</a>"
        "<a href='other.html#there'>x</a><a href='other.html#gone'>x</a><img src=gone.png>"
    )
    assert check_built.what_is_wrong(tmp_path) == [
        "index.html: loads //example.org/a.js",
        "index.html: gone.png leads nowhere",
        "index.html: other.html#gone leads nowhere",
        "style.css: loads https://example.org/a.css",
    ]
    assert check_built.what_is_wrong(tmp_path / "nothing")
