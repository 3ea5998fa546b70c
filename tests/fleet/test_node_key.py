"""What `edge-far fleet doctor` says of a key is what Flower's own SuperNode says."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="flwr is not installed here; 'make test' runs this in .venv-fleet")

from edge_far.commands.fleet.node_key import wrong_with
from tests.ssh_keys import SSH_KEYGEN, needs_ssh_keygen

pytestmark = [pytest.mark.fleet, needs_ssh_keygen, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # click's


def flower_takes(key: Path) -> bool:
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    options = argparse.Namespace(auth_supernode_private_key=str(key), auth_supernode_public_key=None)
    try:
        return _try_setup_client_authentication(options) is not None
    except (SystemExit, TypeError):  # TypeError: a passphrase, which Flower does not catch
        return False


@pytest.mark.parametrize("name", [*SSH_KEYGEN, "256", "521", "damaged", "cut", "public"])
def test_a_key_is_good_where_flower_takes_it(name: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    words = list(SSH_KEYGEN.get(name, SSH_KEYGEN["good"]))
    if name.isdigit():
        words[words.index("384")] = name
    subprocess.run(["ssh-keygen", "-q", *words, "-f", key], check=True)
    lines = key.read_text().splitlines(keepends=True)
    if name == "damaged":
        key.write_text("".join(lines[:2] + lines[3:]))
    elif name == "cut":
        key.write_text("".join(lines[:3]))
    elif name == "public":
        shutil.copy(tmp_path / "key.pub", key)
    good = wrong_with(key.read_bytes(), str(key)) is None
    assert good == flower_takes(key) == (name in ("good", "256", "521"))
