"""A bundle that nobody whom the device trusts has signed is refused, each time with its own reason.

Signatures are made by ssh-keygen itself, and by `edge-far sign` in one test, which ssh-keygen itself checks.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle, open_bundle
from edge_far.bundles.signature import SIGNATURE, make_signature
from edge_far.cli import main
from edge_far.errors import BundleError, BundleUntrusted, ConfigError, EdgeFarError, InputMissing, Unavailable
from edge_far.profile.run_sections import Security
from tests.ssh_keys import NAMESPACE, Key, make_key, needs_ssh_keygen

PACKAGE = Path(__file__).parents[2] / "edge_far"
# They open what they have just written, or what their parent process has just checked.
UNASKED = {"compile/pipeline.py", "bench/pipeline.py", "bench/work/bundle_steps.py", "device/planning/probe.py"}
UNASKED |= {"doctor/bench.py"}  # times a bundle that its user names; no profile is asked for there


class Device:
    """A device's allowed_signers and revoked keys, and a bundle's copy that the maker has signed."""

    def __init__(self, root: Path, bundle: Path) -> None:
        self.bundle = root / "bundle"
        shutil.copytree(bundle, self.bundle)
        self.allowed, self.revoked = root / "allowed_signers", root / "revoked"
        self.security = Security(allowed_signers=str(self.allowed))
        self.allow(make_key("maker"))
        self.sign(make_key("maker"))

    def allow(self, key: Key, options: str = "") -> None:
        self.allowed.write_text(key.line(options=options))

    def revoke(self, text: str) -> None:
        self.revoked.write_text(text)
        self.security = Security(allowed_signers=str(self.allowed), revoked_keys=str(self.revoked))

    def sign(self, key: Key, namespace: str = NAMESPACE) -> None:
        (self.bundle / SIGNATURE).write_bytes(key.sign(self.manifest.read_bytes(), namespace))

    @property
    def manifest(self) -> Path:
        return self.bundle / "manifest.json"

    def refusal(self, kind: type[EdgeFarError] = BundleUntrusted) -> str:
        """Return the one line that refuses the bundle."""
        with pytest.raises(kind) as raised:
            open_bundle(self.bundle, self.security)
        assert raised.value.exit_code == (65 if issubclass(kind, BundleError) else kind.exit_code)
        assert raised.value.hint and "\n" not in str(raised.value)
        return str(raised.value)


@pytest.fixture
def device(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Device:
    return Device(tmp_path, tiny_bundle("tiny-fp32").root)


@needs_ssh_keygen
def test_the_makers_bundle_opens_and_says_whose_it_is(device: Device) -> None:
    assert open_bundle(device.bundle, device.security).signer == "maker@example.org"
    device.allowed.write_text("# comment\n\n" + make_key("other").line("other@example.org") + make_key("maker").line())
    device.revoke(make_key("other").public + "\n")
    opened = open_bundle(device.bundle, device.security)
    assert opened.signer == "maker@example.org" and SIGNATURE not in opened.manifest.files
    assert open_bundle(device.bundle).signer is None


@needs_ssh_keygen
def test_unsigned(device: Device) -> None:
    (device.bundle / SIGNATURE).unlink()
    assert "the bundle is not signed: manifest.json.sig is missing" in device.refusal()


@needs_ssh_keygen
@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
def test_a_flipped_byte_of_the_manifest(device: Device, place: float) -> None:
    content = bytearray(device.manifest.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    device.manifest.write_bytes(content)
    assert "manifest.json is not what was signed" in device.refusal()


@needs_ssh_keygen
def test_a_flipped_byte_of_a_file(device: Device) -> None:
    path = device.bundle / "portable" / "step.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "step.onnx: the content does not match manifest.json" in device.refusal(BundleError)


@needs_ssh_keygen
def test_a_flipped_byte_of_the_signature(device: Device) -> None:
    lines = (device.bundle / SIGNATURE).read_text().splitlines()
    lines[-2] = lines[-2][::-1]  # the end of the signature proper
    (device.bundle / SIGNATURE).write_text("\n".join(lines) + "\n")
    device.refusal()


@needs_ssh_keygen
def test_another_signer(device: Device) -> None:
    device.sign(make_key("other"))
    refused = device.refusal()
    assert "which is none of the allowed signers" in refused and "SHA256:" in refused


@needs_ssh_keygen
def test_nobody_is_allowed(device: Device) -> None:
    device.allowed.write_text("")
    assert "which is none of the allowed signers" in device.refusal()


@needs_ssh_keygen
def test_a_signature_for_something_else(device: Device) -> None:
    device.sign(make_key("maker"), "git")
    assert "signed for another purpose than edge-far@bundle" in device.refusal()


@needs_ssh_keygen
def test_a_signer_of_other_things(device: Device) -> None:
    device.allow(make_key("maker"), 'namespaces="git"')
    assert "may not sign bundles" in device.refusal()
    device.allow(make_key("maker"), f'namespaces="git,{NAMESPACE}"')
    assert open_bundle(device.bundle, device.security).signer == "maker@example.org"


@needs_ssh_keygen
def test_an_expired_and_a_future_key(device: Device) -> None:
    device.allow(make_key("maker"), 'valid-before="20200101"')
    assert "the signing key has expired" in device.refusal()
    device.allow(make_key("maker"), 'valid-after="21000101"')
    assert "the signing key is not yet valid" in device.refusal()
    device.allow(make_key("maker"), 'valid-after="20200101",valid-before="21000101"')
    assert open_bundle(device.bundle, device.security).signer == "maker@example.org"


@needs_ssh_keygen
def test_a_revoked_key(device: Device) -> None:
    device.revoke(make_key("maker").public + "\n")
    assert "is revoked" in device.refusal()
    list_of_openssh = device.revoked.with_name("krl")
    command = ["ssh-keygen", "-q", "-k", "-f", list_of_openssh, make_key("maker").path.with_suffix(".pub")]
    subprocess.run(command, check=True)
    shutil.move(list_of_openssh, device.revoked)
    assert "is revoked" in device.refusal()


@needs_ssh_keygen
def test_settings_that_cannot_be_read_open_nothing(device: Device) -> None:
    device.revoke("no key\n")
    assert "security.revoked_keys: no list of keys" in device.refusal(ConfigError)
    device.revoked.unlink()
    assert "security.revoked_keys: cannot read" in device.refusal(ConfigError)
    device.allowed.unlink()
    assert "security.allowed_signers: cannot read" in device.refusal(ConfigError)


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["a bare .pub", "garbage", "bytes", "a comment and a word"])
def test_signers_of_which_no_line_is_readable(device: Device, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    contents = {
        "a bare .pub": make_key("maker").path.with_suffix(".pub").read_bytes(),
        "garbage": b"x y z invalid option\n",
        "bytes": b'\xff" \x81=\xfe "\n\xfe\n',
        "a comment and a word": b"# signers\n\nmaker\n",
    }
    device.allowed.write_bytes(contents[kind])
    says = f"no line of {device.allowed} is readable"
    assert f"security.allowed_signers: {says}" in device.refusal(ConfigError)
    assert main(["verify", str(device.bundle), "--allowed-signers", str(device.allowed)]) == 78
    assert f"--allowed-signers: {says}" in capsys.readouterr().err
    if kind == "a bare .pub":
        device.allowed.write_bytes(contents[kind] + make_key("maker").line().encode())
        assert open_bundle(device.bundle, device.security).signer == "maker@example.org"


@needs_ssh_keygen
def test_a_signed_manifest_that_names_a_file_outside(device: Device) -> None:
    """Its maker is trusted, and what he signed is refused all the same."""
    outside = device.bundle.parent / "outside"
    outside.write_bytes(b"secret")
    document = json.loads(device.manifest.read_bytes())
    info = document["files"]["tokenizer.json"]
    for name in ("../outside", str(outside)):
        document["files"] = {name: info}
        device.manifest.write_text(json.dumps(document))
        device.sign(make_key("maker"))
        assert f"the path '{name[:60]}' leaves the bundle" in device.refusal(BundleError)


@needs_ssh_keygen
@pytest.mark.parametrize("content", [b"", b"\n", b"-----BEGIN SSH SIGNATURE-----\n", b"x" * 70_000])
def test_what_is_no_signature(device: Device, content: bytes) -> None:
    (device.bundle / SIGNATURE).write_bytes(content)
    assert "no signature" in device.refusal()


@needs_ssh_keygen
def test_a_signature_that_is_no_plain_file(device: Device) -> None:
    elsewhere = device.bundle.parent / "elsewhere.sig"
    (device.bundle / SIGNATURE).rename(elsewhere)
    (device.bundle / SIGNATURE).symlink_to(elsewhere)
    assert "not a small plain file" in device.refusal()
    (device.bundle / SIGNATURE).unlink()
    os.mkfifo(device.bundle / SIGNATURE)
    assert "not a small plain file" in device.refusal()


@needs_ssh_keygen
def test_the_signature_is_checked_before_the_manifest_is_understood(device: Device) -> None:
    device.manifest.write_bytes(b"{")
    assert "manifest.json is not what was signed" in device.refusal()


@needs_ssh_keygen
def test_what_we_sign_ssh_keygen_takes(device: Device) -> None:
    (device.bundle / SIGNATURE).write_bytes(make_signature(device.manifest.read_bytes(), make_key("maker").path))
    command = ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", "maker@example.org", "-f", device.allowed, "-s"]
    done = subprocess.run(
        [*command, device.bundle / SIGNATURE], input=device.manifest.read_bytes(), capture_output=True, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith(b'Good "edge-far@bundle" signature')


@needs_ssh_keygen
def test_keys_that_cannot_sign(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        make_signature(b"{}", tmp_path / "none")
    (tmp_path / "text").write_text("no key\n")
    with pytest.raises(ConfigError, match="ssh-keygen does not sign"):
        make_signature(b"{}", tmp_path / "text")


def test_without_ssh_keygen_nothing_opens(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("tiny-fp32").root, root)
    (root / SIGNATURE).write_bytes(b"-----BEGIN SSH SIGNATURE-----\n")
    (tmp_path / "allowed").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="ssh-keygen: is not installed") as raised:
        open_bundle(root, Security(allowed_signers=str(tmp_path / "allowed")))
    assert raised.value.exit_code == 69


@pytest.mark.parametrize(
    ("says", "told"),
    [("No user exists for uid 61234", "libnss-systemd"), ("ssh-keygen: unknown option -- Y", "8.2 or newer")],
)
def test_an_ssh_keygen_that_does_not_work_opens_nothing(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, told: str
) -> None:
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("tiny-fp32").root, root)
    (root / SIGNATURE).write_bytes(b"-----BEGIN SSH SIGNATURE-----\n")
    (tmp_path / "allowed").write_text("")
    program = tmp_path / "ssh-keygen"
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match=told):
        open_bundle(root, Security(allowed_signers=str(tmp_path / "allowed")))


def test_whoever_opens_a_bundle_says_whose_signatures_it_asks_for() -> None:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "open_bundle":
                asks = len(node.args) == 2 or any(word.arg == "signers" for word in node.keywords)
                found[str(path.relative_to(PACKAGE))] = asks
    assert {name for name, asks in found.items() if not asks} == UNASKED
    assert "daemon/service.py" in found and "commands/common.py" in found
