"""Is a bundle signed by somebody whom this device trusts: OpenSSH's signatures, made and checked by `ssh-keygen -Y`.

manifest.json.sig is over manifest.json, which holds the SHA-256 of every other file. The check comes before a byte of
the manifest is understood. Nothing here is cryptography of ours, and nothing here decides by itself: what ssh-keygen
does not accept is refused, and its words are read only to say why.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edge_far.errors import BundleUntrusted, ConfigError, InputMissing, Unavailable

__all__ = ["NAMESPACE", "SIGNATURE", "Signers", "has_signature", "make_signature", "verify_signature"]

NAMESPACE = "edge-far@bundle"  # a signature made for git or for mail is none for a bundle
SIGNATURE = "manifest.json.sig"
SIGNATURE_BYTES = 64 << 10
CHECK_S = 60.0
_DO_NOT_USE = "do not use this bundle; ask whoever made it"


class Signers(Protocol):
    """Who may sign: the path of an allowed_signers file of OpenSSH, and of a list of revoked keys (KRL or public keys).

    Without the first nothing is asked for. The section `security` of a profile is one.
    """

    @property
    def allowed_signers(self) -> str | None:
        """Return the path, or None."""

    @property
    def revoked_keys(self) -> str | None:
        """Return the path, or None."""


def verify_signature(root: Path, manifest: bytes, signers: Signers) -> str | None:
    """Return the principal that signed these bytes of the manifest of `root`; None where no signature is asked for.

    Raises BundleUntrusted where it is unsigned, altered, or signed by another, by an expired or by a revoked key;
    ConfigError where a file of `signers` cannot be read, Unavailable without a working ssh-keygen.
    """
    if signers.allowed_signers is None:
        return None
    allowed = _readable(signers.allowed_signers, "security.allowed_signers")
    revoked = []
    if signers.revoked_keys is not None:
        revoked = ["-r", _readable(signers.revoked_keys, "security.revoked_keys")]
    signature = _signature_of(root)
    key = _check_bytes(signature, manifest)
    words = ""
    for name in _principals(signature, allowed, key):
        asked = ["verify", "-vvv", "-n", NAMESPACE, "-I", name, "-s", signature, "-f", allowed, *revoked]
        check = _ssh_keygen(asked, manifest)
        if check.returncode == 0:
            return name
        words += _words(check)
    raise _refusal(words, signature, allowed, key)


def make_signature(manifest: bytes, key: Path) -> bytes:
    """Return the signature of a manifest by a private key, or by a public key whose private one the agent holds.

    ssh-keygen may ask the terminal for a passphrase. Raises InputMissing without the key, ConfigError where it cannot
    sign, Unavailable without a working ssh-keygen.
    """
    if not key.is_file():
        raise InputMissing("no such key", where=str(key), hint="make one with 'ssh-keygen -t ed25519 -f KEY'")
    with tempfile.TemporaryDirectory(prefix="edge-far-sign-") as folder:
        copy = Path(folder) / "manifest.json"
        copy.write_bytes(manifest)
        done = _ssh_keygen(["sign", "-n", NAMESPACE, "-f", str(key.resolve()), str(copy)], None)
        made = copy.with_name(SIGNATURE)
        if done.returncode or not made.is_file():
            message = f"ssh-keygen does not sign: {_last(_words(done))}"
            raise ConfigError(message, where=str(key), hint="another key, or its passphrase")
        return made.read_bytes()


def _readable(path: str, key: str) -> str:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", where=key, hint="see docs/explain/security.md"
        ) from error
    return path


def has_signature(root: Path) -> bool:
    """Return whether a bundle has a signature, whoever made it; BundleUntrusted where it is no small plain file."""
    path = root.resolve() / SIGNATURE
    if not path.exists() and not path.is_symlink():
        return False
    if path.is_symlink() or not path.is_file() or path.stat().st_size > SIGNATURE_BYTES:
        raise BundleUntrusted(f"{SIGNATURE} is no signature: not a small plain file", where=str(root), hint=_DO_NOT_USE)
    return True


def _signature_of(root: Path) -> str:
    if not has_signature(root):
        hint = "sign it where it was made: edge-far sign BUNDLE --key KEY"
        raise BundleUntrusted(f"the bundle is not signed: {SIGNATURE} is missing", where=str(root), hint=hint)
    return str(root.resolve() / SIGNATURE)


def _check_bytes(signature: str, manifest: bytes) -> str:
    """Return the fingerprint of the key that signed exactly these bytes, whoever that is."""
    check = _ssh_keygen(["check-novalidate", "-n", NAMESPACE, "-s", signature], manifest)
    if check.returncode == 0:
        found = re.search(rb"key (\S+)", check.stdout)
        return found[1].decode("ascii", "replace") if found else "an unknown key"
    words = _words(check)
    if "namespace" in words:
        raise BundleUntrusted(f"signed for another purpose than {NAMESPACE}", where=signature, hint=_DO_NOT_USE)
    if "incorrect signature" in words:
        message = "manifest.json is not what was signed: one of the two was altered"
        raise BundleUntrusted(message, where=signature, hint=_DO_NOT_USE)
    raise BundleUntrusted(f"no signature that ssh-keygen reads: {_last(words)}", where=signature, hint=_DO_NOT_USE)


def _principals(signature: str, allowed: str, key: str) -> list[str]:
    """Return the names that the allowed_signers file gives the key of a signature, at least one."""
    search = _ssh_keygen(["find-principals", "-s", signature, "-f", allowed], b"")
    names = search.stdout.decode("utf-8", "replace").splitlines()
    if search.returncode or not names:
        _refuse_unreadable(allowed, _words(search))
        raise _refusal(_words(search), signature, allowed, key)
    return names


def _refuse_unreadable(allowed: str, words: str) -> None:
    """Raise ConfigError where ssh-keygen tells of every line of the allowed_signers file that it is none."""
    lines = {number for number, line in enumerate(Path(allowed).read_bytes().split(b"\n"), 1) if _says_something(line)}
    complaint = rf"^{re.escape(allowed)}:(\d+): (?:missing|invalid|bad) "  # of a key that has expired it says "key has"
    told = {int(number) for number in re.findall(complaint, words, re.MULTILINE)}
    if lines and lines <= told:
        hint = "a line is NAME KEY, as in maker@example.org ssh-ed25519 AAAA...: a name before what the .pub file holds"
        raise ConfigError(f"no line of {allowed} is readable", where="security.allowed_signers", hint=hint)


def _says_something(line: bytes) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(b"#")


def _refusal(words: str, signature: str, allowed: str, key: str) -> BundleUntrusted | ConfigError:
    """Say why ssh-keygen does not accept a signature that belongs to the manifest."""
    if told := re.search(r"key has expired: .*", words):
        return BundleUntrusted(f"the signing {told[0]}", where=signature, hint=f"a new signature, or {allowed}")
    if told := re.search(r"key is not yet valid: .*", words):
        return BundleUntrusted(f"the signing {told[0]}", where=signature, hint="is this device's clock right?")
    if told := re.search(r"sshkey_check_revoked(?: failed)?: (.*)", words):
        if "revoked" in told[1]:
            return BundleUntrusted(f"the signing key {key} is revoked", where=signature, hint=_DO_NOT_USE)
        return ConfigError(f"no list of keys: {told[1]}", where="security.revoked_keys", hint="see man ssh-keygen, -k")
    if "is not permitted for use in signature namespace" in words:
        message = f"the signer {key} may not sign bundles"
        return BundleUntrusted(message, where=signature, hint=f'namespaces="{NAMESPACE}" in {allowed} would allow it')
    if "No principal matched" in words:
        message = f"signed by {key}, which is none of the allowed signers"
        return BundleUntrusted(message, where=signature, hint=f"allowed are the keys in {allowed}")
    return BundleUntrusted(f"ssh-keygen does not accept it: {_last(words)}", where=signature, hint=_DO_NOT_USE)


def _ssh_keygen(arguments: Sequence[str], message: bytes | None) -> subprocess.CompletedProcess[bytes]:
    """Run `ssh-keygen -Y ARGUMENTS` on a message; with None it may ask the terminal, and takes its time."""
    program = shutil.which("ssh-keygen")
    if program is None:
        hint = "install OpenSSH's client (Debian: apt install openssh-client)"
        raise Unavailable("is not installed, and signatures need it", where="ssh-keygen", hint=hint)
    limit = None if message is None else CHECK_S
    try:
        done = subprocess.run(
            [program, "-Y", *arguments],
            input=message,
            capture_output=True,
            timeout=limit,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"does not run: {error}", where=program, hint="install OpenSSH's client anew") from error
    words = _words(done)
    if "No user exists for uid" in words:
        hint = "a service's own user needs libnss-systemd (Debian: apt install libnss-systemd)"
        raise Unavailable(_last(words), where=program, hint=hint)
    if re.search(r"^\S*ssh-keygen: (unknown|illegal|invalid|unrecognized) option", words, re.MULTILINE):
        raise Unavailable("knows no signatures", where=program, hint="OpenSSH 8.2 or newer is needed")
    return done


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode("utf-8", "replace").replace("\r", "")


def _last(words: str) -> str:
    """Return the last line that is meant for people."""
    lines = [line for line in words.splitlines() if line.strip() and not line.startswith("debug")]
    return lines[-1] if lines else "it says nothing"
