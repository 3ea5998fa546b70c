"""The whole page from its sections: one HTML text that loads nothing and runs nothing, as its policy says."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from edge_far import __version__
from edge_far.report.page.markup import Section, escaped
from edge_far.report.page.style import STYLE

__all__ = ["is_page", "page"]

FOOTER = "<footer>edge-far "


def page(title: str, lead: str, head: str, sections: Sequence[Section]) -> str:
    """Return the page; `title` and `lead` are plain text, `head` is markup that stands before the sections."""
    links = "".join(f'<li><a href="#{escaped(each.anchor)}">{escaped(each.title)}</a></li>' for each in sections)
    parts = "".join(
        f'<section id="{escaped(each.anchor)}"><h2>{escaped(each.title)}</h2>{each.body}</section>' for each in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy()}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header><h1>{escaped(title)}</h1><p>{escaped(lead)}</p>{head}<nav aria-label="Sections"><ul>{links}</ul></nav></header>
{parts}
{FOOTER}{escaped(__version__)}. This page needs no other file and asks nobody for anything.</footer>
</main>
</body>
</html>
"""


def is_page(path: Path) -> bool:
    """Return whether a file is a page that was written here; False where it cannot be read."""
    try:
        return FOOTER in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _policy() -> str:
    """Return what the browser may do: apply this style sheet, by its hash, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
