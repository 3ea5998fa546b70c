"""Is everything there that a round needs: packages, the desk's modes, the bundle, keys, the server."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_far.errors import EdgeFarError

__all__ = ["examined"]

OLDEST = (1, 42)
WAIT_S = 10.0


def examined(options: argparse.Namespace) -> dict[str, Any]:
    """Return every check with a sentence: what was found, and what to do where it is not as it should be."""
    return {"checks": [{"name": name, "ok": ok, "text": text} for name, ok, text in _checks(options)]}


def _checks(options: argparse.Namespace) -> Iterator[tuple[str, bool, str]]:
    yield _flower()
    yield _desk(options.desk)
    if options.bundle:
        yield _bundle(Path(options.bundle))
    if options.key:
        yield _key(options.key)
    if options.server:
        yield _server(options.server, options.root_certificates)


def _flower() -> tuple[str, bool, str]:
    try:
        version = importlib.metadata.version("flwr")
    except importlib.metadata.PackageNotFoundError:
        hint = "the device's own environment needs none; Flower's has it: pip install 'edge-far[fleet]'"
        return "flower", False, f"flwr is not installed here: {hint}"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    known = numbers >= OLDEST
    return "flower", known, f"flwr {version}" + ("" if known else f"; {'.'.join(map(str, OLDEST))} or newer is needed")


def _desk(desk: Path) -> tuple[str, bool, str]:
    try:
        mode = stat.S_IMODE(desk.stat().st_mode)
    except OSError as error:
        return "desk", False, f"{desk}: {error.strerror}; deploy/edge-far-fleet.tmpfiles makes it"
    if mode & 0o007:
        return "desk", False, f"{desk} is open to everybody (mode {mode:o}); chmod 2770"
    if not os.access(desk, os.R_OK | os.W_OK | os.X_OK):
        return "desk", False, f"{desk} is not this user's; its group is edge-far-fleet"
    return "desk", True, f"{desk}, mode {mode:o}"


def _bundle(root: Path) -> tuple[str, bool, str]:
    from edge_far.bundles.bundle import open_bundle

    try:
        bundle = open_bundle(root)
    except EdgeFarError as error:
        return "bundle", False, str(error)
    return "bundle", True, f"bundle {bundle.fingerprint[:12]}; every device of the fleet must have this one"


def _key(key: Path) -> tuple[str, bool, str]:
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
    except OSError as error:
        return "key", False, f"{key}: {error.strerror}; ssh-keygen -t ecdsa -b 384 -N '' -f {key}"
    if mode & 0o077:
        return "key", False, f"{key} can be read by others (mode {mode:o}); chmod 600"
    return "key", True, f"{key}, mode {mode:o}"


def _server(address: str, roots: Path | None) -> tuple[str, bool, str]:
    """Shake hands by TLS, which proves the server's name and who signed for it."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return "server", False, f"{address!a:.80} is not HOST:PORT"
    try:
        trusted = ssl.create_default_context(cafile=roots)
        with (
            socket.create_connection((host.strip("[]"), int(port)), WAIT_S) as plain,
            trusted.wrap_socket(plain, server_hostname=host.strip("[]")) as channel,
        ):
            return "server", True, f"{address} answers by {channel.version()}, and its certificate is good"
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
        return "server", False, f"{address}: {reason}"
