"""Every command that opens a bundle refuses one that is not signed, before ONNX Runtime opens anything of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from tests.ssh_keys import make_key, needs_ssh_keygen

pytestmark = needs_ssh_keygen
COMMANDS = {
    "verify": [],
    "plan": ["--no-probe"],
    "eval": ["--data", "DATA"],
    "merge": ["--out", "OUT"],
    "predict": ["w1"],
    "train": ["--train", "DATA", "--out", "OUT"],
}


@pytest.fixture
def copy(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Path:
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("tiny-fp32").root, root)
    return root


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Return a profile that trusts the maker."""
    (tmp_path / "allowed_signers").write_text(make_key("maker").line())
    path = tmp_path / "profile.yaml"
    path.write_text(f"memory: {{budget_mib: 400}}\nsecurity: {{allowed_signers: {tmp_path}/allowed_signers}}\n")
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unsigned_bundle_is_refused(
    command: str,
    copy: Path,
    profile: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("a model was opened"))
    places = {"DATA": str(tiny_data), "OUT": str(tmp_path / "out")}
    arguments = [places.get(word, word) for word in COMMANDS[command]]
    assert main([command, str(copy), *arguments, "--profile", str(profile), "--json"]) == 65
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "BundleUntrusted" and error["message"].startswith("the bundle is not signed")
    assert not (tmp_path / "out").exists()


def test_sign_then_verify_and_merge(
    copy: Path, profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(copy)]) == 0
    assert capsys.readouterr().out.endswith("files match the manifest; not signed\n")
    assert main(["sign", str(copy), "--key", str(make_key("maker").path)]) == 0
    assert main(["sign", str(copy), "--key", str(make_key("maker").path)]) == 73
    capsys.readouterr()
    assert main(["verify", str(copy), "--profile", str(profile), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["signed"] and document["signer"] == "maker@example.org"
    allowed = tmp_path / "allowed_signers"
    assert main(["verify", str(copy), "--allowed-signers", str(allowed)]) == 0
    assert capsys.readouterr().out.endswith("signed by maker@example.org\n")
    assert main(["merge", str(copy), "--profile", str(profile), "--out", str(tmp_path / "model")]) == 0
    assert main(["verify", str(copy), "--revoked-keys", str(allowed)]) == 64
    assert main(["verify", str(copy), "--profile", str(profile), "--allowed-signers", str(allowed)]) == 64


def test_a_released_model_is_not_taken_for_a_signed_bundle(
    copy: Path, profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", str(copy), "--out", str(tmp_path / "model")]) == 0
    assert main(["predict", str(tmp_path / "model"), "w1", "--profile", str(profile)]) == 65
    assert "a released model carries no signature" in capsys.readouterr().err


def test_a_signature_that_is_no_plain_file_is_refused_unasked(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signature = copy / "manifest.json.sig"
    for make in (signature.mkdir, lambda: signature.symlink_to(copy / "manifest.json")):
        make()
        assert main(["verify", str(copy)]) == 65
        assert "manifest.json.sig is no signature: not a small plain file" in capsys.readouterr().err
        signature.rmdir() if signature.is_dir() else signature.unlink()
