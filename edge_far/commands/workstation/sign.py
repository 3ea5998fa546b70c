"""Sign a bundle with an OpenSSH key, so that devices can tell who made it: manifest.json.sig beside its manifest.

The key is made by ssh-keygen; its public half goes into the allowed_signers file of each device
(docs/explain/security.md). A signature is of this bundle as it is: whatever changes it makes it worthless.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.console import Console

EXAMPLES = """examples:
  ssh-keygen -t ed25519 -f maker -C maker@example.org      once; 'maker' stays secret, 'maker.pub' goes to the devices
  edge-far sign bundle --key maker
  edge-far verify bundle --allowed-signers allowed_signers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far sign`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory made by 'edge-far export'")
    parser.add_argument(
        "--key",
        required=True,
        type=Path,
        metavar="FILE",
        help="private key of OpenSSH, or the public one where ssh-agent holds the private",
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Sign; the document names the signature."""
    from edge_far.bundles.bundle import MANIFEST, open_bundle
    from edge_far.bundles.signature import NAMESPACE, SIGNATURE, make_signature
    from edge_far.errors import OutputExists
    from edge_far.storage import write_atomically

    bundle = open_bundle(options.bundle, signers=None)  # what is damaged is not signed
    path = options.bundle / SIGNATURE
    if path.exists() or path.is_symlink():
        raise OutputExists("the bundle is signed already", where=str(path), hint="remove it to sign anew")
    write_atomically(path, make_signature((bundle.root / MANIFEST).read_bytes(), options.key))
    return {
        "bundle": str(options.bundle),
        "fingerprint": bundle.fingerprint,
        "signature": str(path),
        "namespace": NAMESPACE,
    }


def render(document: dict[str, Any]) -> str:
    """Return what was signed."""
    return f"{document['signature']}: signed, manifest {document['fingerprint'][:16]}"
