"""Check a bundle without opening a model: every file by its SHA-256, and who signed it where that is asked for.

With a profile that has security.allowed_signers, or with --allowed-signers, a bundle that is unsigned, altered, or
signed by another, by an expired or by a revoked key is refused (exit 65).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.console import Console
from edge_far.errors import ConfigError

EXAMPLES = """examples:
  edge-far verify bundle                                            nothing is damaged; no signature is asked for
  edge-far verify bundle --profile /etc/edge-far/profile.yaml       as this device would
  edge-far verify bundle --allowed-signers allowed_signers --revoked-keys revoked
"""
# The settings of a profile that options give here.
OPTIONS = {"security.allowed_signers": "--allowed-signers", "security.revoked_keys": "--revoked-keys"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far verify`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory made by 'edge-far export'")
    parser.add_argument("--profile", help="device profile whose section 'security' says who must have signed")
    parser.add_argument("--allowed-signers", metavar="FILE", help="OpenSSH's allowed_signers file, without a profile")
    parser.add_argument("--revoked-keys", metavar="FILE", help="keys that count no longer, beside --allowed-signers")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Check; the document says what was found."""
    from edge_far.bundles.bundle import open_bundle
    from edge_far.bundles.signature import has_signature

    try:
        bundle = open_bundle(options.bundle, _signers(options))
    except ConfigError as error:
        if options.allowed_signers is None or error.where not in OPTIONS:
            raise
        raise ConfigError(error.message, where=OPTIONS[error.where], hint=error.hint) from error
    files = bundle.manifest.files
    return {
        "bundle": str(options.bundle),
        "fingerprint": bundle.fingerprint,
        "files": len(files),
        "mib": round(sum(info.bytes for info in files.values()) / 2**20, 1),
        "signed": has_signature(bundle.root),
        "signer": bundle.signer,
    }


def _signers(options: argparse.Namespace) -> Any:
    from edge_far.errors import UsageError
    from edge_far.profile.document import load_profile
    from edge_far.profile.run_sections import Security

    if options.revoked_keys is not None and options.allowed_signers is None:
        raise UsageError("who may sign is not named", where="--revoked-keys", hint="give --allowed-signers too")
    if options.profile is not None and options.allowed_signers is not None:
        raise UsageError("the profile names them already", where="--allowed-signers", hint="give one of the two")
    if options.profile is not None:
        return load_profile(options.profile).security
    return Security(allowed_signers=options.allowed_signers, revoked_keys=options.revoked_keys)


def render(document: dict[str, Any]) -> str:
    """Return what was checked, in one line."""
    checked = f"{document['bundle']}: {document['files']} files, {document['mib']} MiB, files match the manifest"
    if document["signer"] is not None:
        return f"{checked}; signed by {document['signer']}"
    return f"{checked}; {'its signature was not asked for' if document['signed'] else 'not signed'}"
