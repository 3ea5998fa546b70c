"""Keys of OpenSSH for tests, made once a session; what needs them is skipped where there is no ssh-keygen."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

NAMESPACE = "edge-far@bundle"
needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")

# What ssh-keygen is told for keys that a SuperNode takes (the first), or does not.
SSH_KEYGEN = {
    "good": ("-t", "ecdsa", "-b", "384", "-N", ""),
    "other": ("-t", "ed25519", "-N", ""),
    "locked": ("-t", "ecdsa", "-b", "384", "-N", "a passphrase"),
    "pem": ("-t", "ecdsa", "-b", "384", "-m", "PEM", "-N", ""),
}


@dataclass(frozen=True)
class Key:
    """One key: the private file, and the public one's line."""

    path: Path
    public: str

    def line(self, principal: str = "maker@example.org", options: str = "") -> str:
        """Return a line of an allowed_signers file."""
        return f"{principal} {options} {self.public}\n"

    def sign(self, message: bytes, namespace: str = NAMESPACE) -> bytes:
        """Return a signature as ssh-keygen makes it, without edge-far."""
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(self.path)]
        return subprocess.run(command, input=message, capture_output=True, check=True).stdout


@cache
def make_key(name: str) -> Key:
    """Return a key without a passphrase; the same name is the same key."""
    path = Path(mkdtemp(prefix="edge-far-keys-")) / name
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return Key(path, path.with_suffix(".pub").read_text().strip())
