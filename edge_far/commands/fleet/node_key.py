"""Is a file a key that Flower's SuperNode takes: OpenSSH's own form, an elliptic curve of NIST, no passphrase.

Reads the public half alone, which is in clear. The form: PROTOCOL.key of OpenSSH.
"""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["wrong_with"]

ARMOUR = re.compile(rb"-----BEGIN OPENSSH PRIVATE KEY-----\s(.+?)-----END OPENSSH PRIVATE KEY-----", re.DOTALL)
OTHER_ARMOUR = re.compile(rb"-----BEGIN ((EC|RSA|DSA|ENCRYPTED) )?PRIVATE KEY-----")
MAGIC = b"openssh-key-v1\0"
KINDS = (b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521")
PUBLIC = (b"ssh-", b"ecdsa-", b"sk-", b"-----BEGIN PUBLIC KEY")
ANOTHER = "make another: ssh-keygen -t ecdsa -b 384 -N '' -f NEW, and register NEW.pub"


def wrong_with(content: bytes, name: str) -> str | None:
    """Return what is wrong with the key in file `name` and what to do, None where nothing is."""
    found = ARMOUR.search(content)
    if found is None:
        if content.startswith(PUBLIC):
            return "is a public key; name the private one, the file without .pub"
        if OTHER_ARMOUR.search(content):
            return f"is not in OpenSSH's form, which Flower wants; is it the authority's, or a server's? {ANOTHER}"
        return f"is not a private key; {ANOTHER}"
    try:
        cipher, kind = _parts(base64.b64decode(b"".join(found[1].split()), validate=True))
    except (binascii.Error, ValueError):
        return f"is a damaged private key; {ANOTHER}"
    if kind not in KINDS:
        return f"is of kind {kind.decode('ascii', 'replace')!a:.40}, and Flower wants ecdsa; {ANOTHER}"
    if cipher != b"none":
        return f"has a passphrase, for which nobody can be asked; take it away: ssh-keygen -p -N '' -f {name}"
    return None


def _parts(raw: bytes) -> tuple[bytes, bytes]:
    """Return cipher and kind of the first key; raises ValueError."""
    if not raw.startswith(MAGIC):
        raise ValueError
    cipher, rest = _text(raw[len(MAGIC) :])
    _, rest = _text(rest)  # how a passphrase becomes a key
    _, rest = _text(rest)  # and its options
    public, rest = _text(rest[4:])  # after how many keys there are
    _text(rest)  # the private half, which must be whole
    return cipher, _text(public)[0]


def _text(raw: bytes) -> tuple[bytes, bytes]:
    """Return a text that stands behind its length, and what follows it; raises ValueError where it is cut off."""
    length = int.from_bytes(raw[:4], "big")
    if len(raw) < 4 + length or len(raw) < 4:
        raise ValueError
    return raw[4 : 4 + length], raw[4 + length :]
