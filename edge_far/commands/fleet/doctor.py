"""Is everything there that a round needs: packages, the desk's modes, the bundle, keys, the server."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import socket
import ssl
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_far.commands.fleet.node_key import wrong_with
from edge_far.errors import EdgeFarError

__all__ = ["examined"]

OLDEST = (1, 42)
WAIT_S = 10.0
KEY_BYTES = 1 << 16
# What `deploy/install.sh --fleet` has set up is looked at where nothing else is named.
INSTALLED = Path("/etc/edge-far/fleet")
FLOWER = Path("/opt/edge-far-fleet")
GROUP = "edge-far-desk"  # deploy/edge-far-fleet.sysusers
# OpenSSL's numbers for what is wrong with a certificate: man openssl-verification-options, X509_V_ERR_*.
NOT_YET, EXPIRED, OTHER_NAME, OTHER_ADDRESS = 9, 10, 62, 64
UNKNOWN_SIGNER = (2, 18, 19, 20, 21)


def examined(options: argparse.Namespace) -> dict[str, Any]:
    """Return every check with a sentence: what was found, and what to do where it is not as it should be."""
    return {"checks": [{"name": name, "ok": ok, "text": text} for name, ok, text in _checks(options)]}


def _checks(options: argparse.Namespace) -> Iterator[tuple[str, bool, str]]:
    server = options.server or _installed_server()
    yield _flower()
    yield _desk(options.desk)
    if options.bundle:
        yield _bundle(Path(options.bundle))
    if options.key or (server and not options.server):
        yield _key(options.key or INSTALLED / "node.key")
    if server:
        yield _server(server, options.root_certificates or (None if options.server else INSTALLED / "ca.crt"))
    elif options.root_certificates:
        yield _authority(options.root_certificates)


def _installed_server() -> str | None:
    """Return the server that the SuperNode's unit speaks with, None where there is no unit or only root may know."""
    with suppress(OSError):
        for line in (INSTALLED / "node.env").read_text().splitlines():
            name, _, value = line.partition("=")
            if name == "EDGE_FAR_FLEET_SERVER":
                return value.strip()
    return None


def _flower() -> tuple[str, bool, str]:
    places = [*map(str, FLOWER.glob("lib/python3*/site-packages")), *sys.path]
    found = next(iter(importlib.metadata.distributions(name="flwr", path=places)), None)
    if found is None:
        hint = "'deploy/install.sh --fleet' puts it there; by hand, beside the checkout, in an environment of its own: "
        hint += "pip install './edge-far[fleet]'"
        return "flower", False, f"flwr is not in {FLOWER}, nor here; {hint}"
    numbers = tuple(int(part) for part in found.version.split(".")[:2] if part.isdigit())
    known = numbers >= OLDEST
    told = f"flwr {found.version} in {found.locate_file('')}"
    return "flower", known, told + ("" if known else f"; {'.'.join(map(str, OLDEST))} or newer is needed")


def _desk(desk: Path) -> tuple[str, bool, str]:
    try:
        mode = desk.stat().st_mode
    except PermissionError:
        return "desk", False, f"{desk} is not for this user: run it with sudo"
    except OSError as error:
        hint = f"'deploy/install.sh --fleet' makes it, or: mkdir -m 2770 {desk}"
        return "desk", False, f"{desk}: {error.strerror}; {hint}"
    if not stat.S_ISDIR(mode):
        return "desk", False, f"{desk} is no directory; name the desk's with --desk"
    mode = stat.S_IMODE(mode)
    if mode & 0o007:
        return "desk", False, f"{desk} is open to everybody (mode {mode:o}); chmod 2770 {desk}"
    if not os.access(desk, os.R_OK | os.W_OK | os.X_OK):
        hint = f"run it as root, or as a member of the desk's group ({GROUP} where install.sh made it)"
        return "desk", False, f"{desk} is not for this user: {hint}"
    return "desk", True, f"{desk}, mode {mode:o}"


def _bundle(root: Path) -> tuple[str, bool, str]:
    from edge_far.bundles.bundle import open_bundle

    try:
        bundle = open_bundle(root)
    except EdgeFarError as error:
        return "bundle", False, str(error)
    except OSError as error:
        return "bundle", False, f"{error.filename or root}: {error.strerror}; run it with sudo, or mend its modes"
    return "bundle", True, f"bundle {bundle.fingerprint[:12]}; every device of the fleet must have this one"


def _key(key: Path) -> tuple[str, bool, str]:
    try:
        mode = key.stat().st_mode
        if not stat.S_ISREG(mode):
            return "key", False, f"{key}: is not a file; name the SuperNode's private key"
        with key.open("rb") as file:
            content = file.read(KEY_BYTES)
    except FileNotFoundError as error:
        return "key", False, f"{key}: {error.strerror}; ssh-keygen -t ecdsa -b 384 -N '' -f {key}"
    except PermissionError:
        return "key", False, f"{key}: not readable for this user; run it with sudo"
    except OSError as error:
        return "key", False, f"{key}: cannot be read: {error.strerror}"
    wrong = wrong_with(content, str(key))
    if wrong is not None:
        return "key", False, f"{key} {wrong}"
    mode = stat.S_IMODE(mode)
    if mode & 0o077:
        return "key", False, f"{key} can be read by others (mode {mode:o}); chmod 600 {key}"
    return "key", True, f"{key}, mode {mode:o}"


def _authority(roots: Path) -> tuple[str, bool, str]:
    try:
        _trusted(roots)
    except ValueError as error:
        return "certificate", False, str(error)
    return "certificate", True, f"{roots} is a certificate; whether the server's is signed by it: --server HOST:PORT"


def _trusted(roots: Path | None) -> ssl.SSLContext:
    """Return whom to trust, without a file the system's authorities; raises ValueError with the sentence."""
    hint = "give the fleet's ca.crt with --root-certificates"
    if roots is not None and not os.access(roots, os.R_OK):
        raise ValueError(f"{roots}: cannot be read; {hint}")
    try:
        return ssl.create_default_context(cafile=roots)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"{roots}: is not a certificate (PEM); {hint}") from error


def _server(address: str, roots: Path | None) -> tuple[str, bool, str]:
    """Shake hands by TLS, which proves the server's name and who signed for it."""
    if "://" in address:
        scheme = address.partition("://")[0]
        return "server", False, f"{address!a:.80} is not HOST:PORT; leave out {f'{scheme}://'!a:.20}"
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        return "server", False, f"{address!a:.80} is not HOST:PORT"
    try:
        trusted = _trusted(roots)
    except ValueError as error:
        return "server", False, str(error)
    try:
        with (
            socket.create_connection((host, int(port)), WAIT_S) as plain,
            trusted.wrap_socket(plain, server_hostname=host) as channel,
        ):
            told = f"{address} answers by {channel.version()}, and its certificate is good"
            return "server", True, f"{told}; {_clock()}"
    except ssl.SSLCertVerificationError as error:
        hint = _certificate_advice(error.verify_code, host, roots)
        return "server", False, f"{address}: {error.verify_message}: {hint}"
    except ssl.SSLError as error:
        hint = "does Flower's SuperLink listen there, started with --ssl-certfile?"
        return "server", False, f"{address} does not speak TLS ({error.reason}): {hint}"
    except OSError as error:
        return "server", False, f"{address}: {error.strerror or error}: {_connection_advice(error, host)}"


def _certificate_advice(code: int, host: str, roots: Path | None) -> str:
    """Return what to do about a certificate that was not accepted."""
    if code in (NOT_YET, EXPIRED):
        return f"{_clock()}; if that is wrong, set it (timedatectl set-ntp true), else make a new server.crt"
    if code in (OTHER_NAME, OTHER_ADDRESS):
        kind = "IP" if code == OTHER_ADDRESS else "DNS"
        return f"call the server as server.crt does, or make it anew with subjectAltName={kind}:{host}"
    if code in UNKNOWN_SIGNER and roots is None:
        return "give the fleet's ca.crt with --root-certificates"
    return f"{roots} is not the authority that signed server.crt; take ca.crt from the fleet's owner again"


def _connection_advice(error: OSError, host: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"this machine does not know the name {host}: /etc/hosts, or the router's DNS"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: is flower-superlink running, and is this its Fleet port?"
    return "is the server on, and does a firewall let its port through?"


def _clock() -> str:
    """Return this machine's time, for Flower compares it with the server's."""
    return time.strftime("this machine's clock says %Y-%m-%d %H:%M:%S UTC", time.gmtime())
