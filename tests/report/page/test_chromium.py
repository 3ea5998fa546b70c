"""The page as a browser shows it: light, dark, and 380 px wide without scrolling sideways."""

from __future__ import annotations

import html
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from tests.report.page.sample import whole_page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
DARK, LIGHT = 0, 1
SCHEMES = {DARK: (0x14, 0x17, 0x1B), LIGHT: (0xFD, 0xFD, 0xFC)}
SECONDS = 60
# A page of our own around the page, which must not run scripts: this one measures it.
FRAME = """<!DOCTYPE html>
<iframe id="f" style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe><pre></pre>
<script>f.onload = () => {{
  const page = f.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach(each => each.open = true);
  const out = [...page.querySelectorAll("main *")].filter(each => !each.closest(".wide, svg"))
    .filter(each => each.getBoundingClientRect().right > {width} + 0.5).map(each => each.tagName);
  document.querySelector("pre").textContent = [root.scrollWidth, root.clientWidth, out.join(" ") || "-",
    f.contentWindow.getComputedStyle(page.querySelector("main")).maxWidth, page.scripts.length].join(";");
}}</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


def chromium(*words: str) -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def pixels(path: Path) -> tuple[int, int, list[bytes]]:
    """Return width, height and the rows of a PNG of 8 bits RGB or RGBA, each pixel's first three bytes in turn."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert depth == 8 and kind in (2, 6)
    bytes_each, packed, place = (3 if kind == 2 else 4), b"", 8
    while place < len(data):
        size, name = struct.unpack(">I4s", data[place : place + 8])
        packed += data[place + 8 : place + 8 + size] if name == b"IDAT" else b""
        place += size + 12
    raw, stride = zlib.decompress(packed), width * bytes_each
    rows: list[bytes] = []
    before = bytes(stride)
    for number in range(height):
        start = number * (stride + 1)
        before = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), before, bytes_each)
        rows.append(before)
    return width, bytes_each, rows


def _unfiltered(kind: int, row: bytearray, above: bytes, step: int) -> bytes:
    """Undo a row's filter (PNG specification, section 9)."""
    for place in range(len(row)):
        left = row[place - step] if place >= step else 0
        up, corner = above[place], above[place - step] if place >= step else 0
        nearest = min((left, up, corner), key=lambda each: abs(left + up - corner - each))
        row[place] = (row[place] + (0, left, up, (left + up) // 2, nearest)[kind]) & 0xFF
    return bytes(row)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(whole_page())
    return path


@pytest.mark.parametrize("width", [380, 1000])
def test_nothing_is_wider_than_the_window(page: Path, width: int, tmp_path: Path) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(page.read_text(), quote=True)))
    told = re.search(r"<pre>([^<]*)</pre>", chromium("--virtual-time-budget=5000", "--dump-dom", frame.as_uri()))
    assert told
    scrolled, shown, wider, widest, scripts = told[1].split(";")
    assert int(scrolled) <= int(shown) == width and wider == "-"
    assert widest == "960px" and scripts == "0"  # the style sheet was applied: its policy lets it


@pytest.mark.parametrize("scheme", [DARK, LIGHT])
def test_a_picture_in_each_scheme(page: Path, scheme: int, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    chromium(
        f"--blink-settings=preferredColorScheme={scheme}",
        "--window-size=500,400",
        f"--screenshot={shot}",
        page.as_uri(),
    )
    width, step, rows = pixels(shot)
    assert width == 500 and len(rows) == 400
    seen = [tuple(row[place : place + 3]) for row in rows[::4] for place in range(0, len(row), 4 * step)]
    ground = max(set(seen), key=seen.count)
    assert ground == SCHEMES[scheme] and len(set(seen)) > 20  # something stands on it
