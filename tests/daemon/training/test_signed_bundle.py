"""A service that trusts a signer alone: it begins with a signed bundle, and never blames examples for another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.daemon.field import Field
from tests.ssh_keys import make_key, needs_ssh_keygen

# Python runs this at the start of every process: the signature goes when a child with this command comes.
GONE = "import os, sys\nif {0!r} in sys.orig_argv and os.path.exists({1!r}): os.rename({1!r}, {2!r})\n"


@pytest.mark.device
@needs_ssh_keygen
def test_only_what_is_signed_trains(field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(field.bundle, tmp_path / "bundle")
    field.bundle = tmp_path / "bundle"
    signature = field.bundle / "manifest.json.sig"
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(make_key("maker").line())
    with field.profile.open("a") as file:
        file.write(f"security: {{allowed_signers: {allowed}}}\n")
    field.feed(350)
    assert field.once(status=65)["error"]["message"].startswith("the bundle is not signed")
    assert field.status()["state"] == "broken"
    signed = make_key("maker").sign((field.bundle / "manifest.json").read_bytes())
    signature.write_bytes(signed)
    places = tmp_path / "places"
    places.mkdir()
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(places), os.environ.get("PYTHONPATH", "")]))
    for child in ("merge", "train", "train", "train"):
        signature.write_bytes(signed)
        (places / "sitecustomize.py").write_text(GONE.format(child, str(signature), str(tmp_path / "gone")))
        error = field.once(status=65)["error"]
        assert error["kind"] == "BundleUntrusted" and "ended with status 65" in error["message"]
        assert "the bundle is not signed" in error["message"]
    status = field.status()
    assert status["examples"]["set_aside"] == 0 and status["cycle_under_way"]["deaths"] == []
    shutil.rmtree(places)
    signature.write_bytes(signed)
    assert field.once()["cycle"]["outcome"] == "released"
    assert status["state"] == "broken" and field.status()["state"] != "broken"
