"""What MkDocs asks while it builds the site: pages from the top of the project, links out of docs/, anchors.

The documents are written for the repository, where every link works as it stands. On the site CARRIED become pages; a
link to any other file outside docs/ becomes its text, for the file is not on the site.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CARRIED = ("CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def anchor(heading: str, separator: str = "-") -> str:
    """Return a heading's anchor as GitHub makes it, and as tests/test_documents.py expects it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def with_site_links(markdown: str, source: Path) -> str:
    """Return the text of the repository's file `source` with links that work on the site; code stays as it is."""
    parts = re.split(r"(^```(?s:.*?)^```$|^ {4}.*$)", markdown, flags=re.MULTILINE)
    for place in range(0, len(parts), 2):
        parts[place] = LINK.sub(lambda found: _link(found, source), parts[place])
    return "".join(parts)


def _link(found: re.Match[str], source: Path) -> str:
    text, target, fragment = found[1], found[2], found[3] or ""
    linked = Path(os.path.normpath(source.parent / target))
    page = _on_site(linked)
    if page is None:
        return text
    return f"[{text}]({os.path.relpath(page, (_on_site(source) or source).parent)}{fragment})"


def _on_site(file: Path) -> Path | None:
    """Return where a file would lie if all of the site lay in docs/; None if it is not on the site."""
    if file.is_relative_to(DOCS):
        return file
    return DOCS / file.name if file.parent == ROOT and file.name in CARRIED else None


def on_config(config: Any) -> Any:
    config.mdx_configs["toc"]["slugify"] = anchor
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for name in CARRIED:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    name = page.file.src_uri
    return with_site_links(markdown, ROOT / name if name in CARRIED else DOCS / name)
