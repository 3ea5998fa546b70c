"""Read the built site: does a page load anything from elsewhere, does a link or a picture lead nowhere?

    python3 scripts/docs_site/check_built.py build/site

Prints what is wrong, a line each, and ends with 1; needs Python alone.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


class _Page(HTMLParser):
    """What a page loads, what it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        if LOADS.get(tag, "") in told:
            self.loads.append(told[LOADS[tag]])
        if tag == "a" and "href" in told:
            self.links.append(told["href"])


def is_elsewhere(address: str) -> bool:
    """Say whether an address is of another server."""
    return bool(urlsplit(address).netloc) or urlsplit(address).scheme in ("http", "https", "ftp")


def what_is_wrong(site: Path) -> list[str]:
    """Return a line for each thing that is loaded from elsewhere, and for each link that leads nowhere."""
    pages = {path: _Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    wrong = [] if pages else [f"{site}: no page"]
    for path, page in pages.items():
        name = path.relative_to(site)
        wrong += [f"{name}: loads {address}" for address in page.loads if is_elsewhere(address)]
        if name == Path("404.html"):
            continue  # its addresses begin at the server's root
        for address in [*page.loads, *page.links]:
            if not is_elsewhere(address) and not _is_there(path, address, pages):
                wrong.append(f"{name}: {address} leads nowhere")
    for sheet in sorted(site.rglob("*.css")):
        found = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", sheet.read_text())
        wrong += [f"{sheet.relative_to(site)}: loads {address}" for address in found]
    return wrong


def _is_there(page: Path, address: str, pages: dict[Path, _Page]) -> bool:
    if address.startswith(("mailto:", "data:", "javascript:")):
        return True
    parts = urlsplit(address)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return False
    return target not in pages or unquote(parts.fragment) in pages[target].anchors


if __name__ == "__main__":
    found = what_is_wrong(Path(sys.argv[1]).resolve())
    for line in found:
        print(line)
    sys.exit(bool(found))
