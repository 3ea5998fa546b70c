"""`edge-far fleet status | doctor`: what they see, in words and as a document; the page's certificates and key."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far.bundles.arrays import write_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from edge_far.fleet.desk import Desk
from edge_far.fleet.server.rounds import Rounds, Settings
from edge_far.fleet.terms import Answer, Order
from tests.daemon.field import environment
from tests.fleet.flower import make_keys
from tests.ssh_keys import SSH_KEYGEN

needs_programs = pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("ssh-keygen")), reason="openssl or ssh-keygen is not there"
)


def asked(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int | None = 0) -> dict[str, Any]:
    """Return the document; without `code` of whatever end, for Flower is not in every environment."""
    assert main(["fleet", *map(str, words), "--json"]) == code or code is None
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_status_of_a_device_tells_order_answer_and_offer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk, state = tmp_path / "desk", tmp_path / "state"
    asked(capsys, "status", "--desk", desk, "--state", state, code=66)
    (state / "offer").mkdir(parents=True)
    desk.mkdir()
    Desk(desk).lay_answer("a", Answer.declined("temperature"), {})
    found = asked(capsys, "status", "--desk", desk, "--state", state)
    assert found["last_answer"]["reason"] == "temperature" and found["offer_waits"] and not found["order_waits"]
    assert main(["fleet", "status", "--desk", str(desk), "--state", str(state)]) == 0
    told = capsys.readouterr().out
    assert "declined: it is too hot" in told and "whose gate decides" in told


def test_status_of_a_server_tells_every_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learners = {"w": np.zeros(3, np.float32)}
    write_arrays(tmp_path / "first.safetensors", learners)
    rounds = Rounds(tmp_path / "fleet")
    rounds.open(Settings("0" * 64, "fedavg", "float32"), tmp_path / "first.safetensors")
    nodes = {"1": {"outcome": "trained", "reason": ""}, "2": {"outcome": "declined", "reason": "hours"}}
    central = {"accuracy": 0.8125, "loss": 1.0, "examples": 16}
    record = {"round": 1, "seconds": 2.5, "bytes_down": 24, "bytes_up": 12, "nodes": nodes, "central": central}
    rounds.finish(1, learners, {}, record)
    found = asked(capsys, "status", "--rounds", tmp_path / "fleet")
    assert found["rounds"] == [record] and found["released"] is None
    assert main(["fleet", "status", "--rounds", str(tmp_path / "fleet")]) == 0
    assert "1/2" in (told := capsys.readouterr().out) and "accuracy 81.25%" in told
    missing = asked(capsys, "status", "--rounds", tmp_path / "nothing", code=66)
    assert "'state'" in missing["error"]["hint"]


def test_work_checks_every_setting_before_the_first_order(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, bundle, state = tmp_path / "desk", tiny_bundle("tiny-fp32").root, tmp_path / "state"
    desk.mkdir()
    (tmp_path / "file").touch()

    def ended(code: int, *, desk: Path = desk, profile: str = "rpi4-2gb", **places: Path) -> None:
        words = [word for name, path in places.items() for word in (f"--{name}", path)]
        asked(capsys, "work", "--desk", desk, "--profile", profile, *words, code=code)

    ended(64, state=state)
    ended(66, state=state, bundle=bundle, desk=tmp_path / "nowhere")
    ended(66, state=state, bundle=tmp_path / "nowhere")
    ended(78, state=state, bundle=bundle, profile="nope")
    assert not state.exists()
    order = {"kind": "train", "bundle": "0" * 64, "round": 1, "wait_s": 60.0}
    id = Desk(desk).place(Order.of(order), {"w": np.zeros(3, np.float32)})
    ended(74, state=tmp_path / "file", bundle=bundle)  # the server need not wait for this board
    assert (found := Desk(desk).answer(id)) and found[0] == Answer.declined("failed")
    assert not Desk(desk).has_order()


def test_work_takes_the_profile_that_the_daemon_takes(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--desk", tmp_path, "--state", tmp_path / "state", "--bundle", tiny_bundle("tiny-fp32").root)
    for profile in ((), ("--profile", "auto")):
        assert asked(capsys, "work", "--once", *words, *profile)["answers"] == []


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with what the commands of docs/howto/fleet.md make."""
    directory = tmp_path_factory.mktemp("fleet") / "keys"
    make_keys(directory, 1)
    return directory


@pytest.fixture
def server(keys: Path) -> Iterator[int]:
    """Return the port of a server that shakes hands by TLS with the page's certificate, twice."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    with socket.create_server(("", 0)) as listening:  # by 127.0.0.2 as well, which is not in the certificate
        listening.settimeout(20)

        def serve() -> None:
            for _ in range(2):
                try:
                    plain, _ = listening.accept()
                    with plain, context.wrap_socket(plain, server_side=True):
                        pass
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def checks(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in document["checks"]}


@needs_programs
def test_the_doctor_finds_what_is_good_and_what_is_missing(
    tmp_path: Path, keys: Path, server: int, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = tmp_path / "desk"
    desk.mkdir()
    desk.chmod(0o770)
    address = f"localhost:{server}"
    words = ("doctor", "--desk", desk, "--key", keys / "node-0", "--server", address)
    good = checks(asked(capsys, *words, "--root-certificates", keys / "ca.crt", code=None))
    assert all(good[name]["ok"] for name in ("desk", "key", "server")), good
    # Nobody whom this machine trusts has signed for it; the key is shown around; the desk is open.
    desk.chmod(0o777)
    (tmp_path / "key").write_bytes((keys / "node-0").read_bytes())
    (tmp_path / "key").chmod(0o644)
    bad = checks(asked(capsys, "doctor", "--desk", desk, "--key", tmp_path / "key", "--server", address, code=69))
    assert not any(bad[name]["ok"] for name in ("desk", "key", "server"))
    assert "certificate" in bad["server"]["text"] or "issuer" in bad["server"]["text"], bad["server"]
    assert "chmod" in bad["key"]["text"] and "chmod" in bad["desk"]["text"]


def key_told(capsys: pytest.CaptureFixture[str], key: Path) -> str:
    return str(checks(asked(capsys, "doctor", "--desk", key.parent, "--key", key, code=69))["key"]["text"])


@needs_programs
def test_the_doctor_reads_what_a_key_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flower's own reader is the oracle of tests/fleet/test_node_key.py."""
    for name, words in SSH_KEYGEN.items():
        subprocess.run(["ssh-keygen", "-q", *words, "-f", tmp_path / name], check=True)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "directory").mkdir()
    lines = (tmp_path / "good").read_text().splitlines(keepends=True)
    (tmp_path / "damaged").write_text("".join(lines[:2] + lines[3:]))
    for path in tmp_path.iterdir():
        path.chmod(0o700 if path.is_dir() else 0o600)
    for name, told in (
        ("other", "is of kind 'ssh-ed25519', and Flower wants ecdsa"),
        ("locked", "has a passphrase"),
        ("pem", "is not in OpenSSH's form, which Flower wants; is it the authority's, or a server's? make another"),
        ("good.pub", "is a public key"),
        ("text", "is not a private key"),
        ("damaged", "is a damaged private key"),
        ("directory", "is not a file"),
        ("nowhere", "ssh-keygen -t ecdsa"),
    ):
        assert told in key_told(capsys, tmp_path / name)
    good = asked(capsys, "doctor", "--desk", tmp_path, "--key", tmp_path / "good", code=None)
    assert checks(good)["key"]["ok"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_key_and_a_bundle_of_another_user_are_lines(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    for name in ("key", "bundle/manifest.json"):
        (tmp_path / name).touch(mode=0o600)
    (tmp_path / "bundle").chmod(0o700)
    code = "import os, sys; from edge_far.cli import main; from edge_far.bundles import bundle\n"
    code += "from edge_far.commands.fleet import command, doctor; os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    words = ["fleet", "doctor", "--desk", "/", "--key", tmp_path / "key", "--bundle", tmp_path / "bundle"]
    command = [sys.executable, "-c", code, *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 69, done
    found = checks(json.loads(done.stdout))
    assert found["key"]["text"].endswith("not readable for this user; run it with sudo")
    assert not found["bundle"]["ok"] and "Permission denied" in found["bundle"]["text"]


def test_a_server_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = checks(asked(capsys, "doctor", "--desk", tmp_path, "--server", f"localhost:{port}", code=69))
    assert "refused" in found["server"]["text"].lower()
    found = checks(asked(capsys, "doctor", "--desk", tmp_path / "no", "--server", "localhost", code=69))
    assert "HOST:PORT" in found["server"]["text"] and not found["desk"]["ok"]


@needs_programs
def test_what_is_named_wrongly_is_told_as_what_it_is(
    tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch(mode=0o600)

    def found(*words: str | Path, code: int | None = 69) -> dict[str, dict[str, Any]]:
        return checks(asked(capsys, "doctor", *words, code=code))

    assert "file is no directory" in found("--desk", tmp_path / "file")["desk"]["text"]
    assert "leave out 'https://'" in found("--desk", tmp_path, "--server", "https://localhost:8000")["server"]["text"]
    roots = ("--desk", tmp_path, "--root-certificates")
    assert "cannot be read" in found(*roots, tmp_path / "nowhere")["certificate"]["text"]
    assert "is not a certificate" in found(*roots, keys / "ca.key")["certificate"]["text"]
    assert "is not a certificate" in found(*roots, tmp_path)["certificate"]["text"]
    assert found(*roots, keys / "ca.crt", code=None)["certificate"]["ok"]


def told_of(capsys: pytest.CaptureFixture[str], tmp_path: Path, *words: str | Path) -> str:
    return str(checks(asked(capsys, "doctor", "--desk", tmp_path, *words, code=69))["server"]["text"])


@needs_programs
def test_a_wrong_certificate_or_name_is_told_with_what_to_do(
    tmp_path: Path, keys: Path, server: int, capsys: pytest.CaptureFixture[str]
) -> None:
    address, roots = f"localhost:{server}", "--root-certificates"
    make_keys(tmp_path / "other", 0)  # another fleet's
    told = told_of(capsys, tmp_path, "--server", address, roots, tmp_path / "other" / "ca.crt")
    assert "ca.crt is not the authority that signed server.crt" in told
    told = told_of(capsys, tmp_path, "--server", f"127.0.0.2:{server}", roots, keys / "ca.crt")
    assert "subjectAltName=IP:127.0.0.2" in told
    told = told_of(capsys, tmp_path, "--server", address, roots, tmp_path / "nowhere.crt")
    assert "nowhere.crt: cannot be read" in told
    told = told_of(capsys, tmp_path, "--server", address, roots, keys / "server.key")
    assert "server.key: is not a certificate" in told


@pytest.mark.parametrize(("code", "told"), [(9, "clock says 20"), (10, "clock says 20"), (62, "DNS:fleet.example")])
def test_a_certificate_out_of_its_time_or_of_another_name(code: int, told: str) -> None:
    from edge_far.commands.fleet.doctor import _certificate_advice

    assert told in _certificate_advice(code, "fleet.example", None)


def test_a_server_without_tls_and_one_that_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with plain:
                plain.recv(1000)
                plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        told = told_of(capsys, tmp_path, "--server", f"127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert "does not speak TLS" in told
    assert "does not know the name no-host.invalid" in told_of(capsys, tmp_path, "--server", "no-host.invalid:8000")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_the_desk_and_the_rounds_of_another_user_are_told(tmp_path: Path) -> None:
    desk = tmp_path / "desk"
    desk.mkdir(mode=0o700)
    code = "import sys; from pathlib import Path; from edge_far.fleet.desk import Desk; import os\n"
    code += "from edge_far.fleet.server.rounds import Rounds; os.setuid(65534)\n"
    code += "from edge_far.errors import InputMissing\ntry: Desk(Path(sys.argv[1])).must_exist()\n"
    code += "except InputMissing as error: print(error.exit_code, error, error.hint)\n"
    code += "try: Rounds(Path(sys.argv[1])).records()\n"
    code += "except InputMissing as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code, desk], capture_output=True, text=True, env=environment())
    assert "66" in done.stdout and "the desk is not for this user" in done.stdout and "group" in done.stdout, done
    assert "the rounds are not for this user (run it with sudo)" in done.stdout, done


@needs_programs
def test_what_install_sh_has_set_up_is_looked_at_without_a_word(
    tmp_path: Path, keys: Path, server: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_far.commands.fleet import doctor

    monkeypatch.setattr(doctor, "INSTALLED", tmp_path / "etc")
    monkeypatch.setattr(doctor, "FLOWER", tmp_path / "opt")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if "packages" not in place])
    lone = checks(asked(capsys, "doctor", "--desk", tmp_path, code=69))
    assert set(lone) == {"flower", "desk"} and "edge-far[fleet]" in lone["flower"]["text"]
    for name, kept in (("node.key", "node-0"), ("ca.crt", "ca.crt")):
        (tmp_path / "etc").mkdir(exist_ok=True)
        shutil.copy(keys / kept, tmp_path / "etc" / name)
    (tmp_path / "etc" / "node.env").write_text(f"EDGE_FAR_FLEET_SERVER=localhost:{server}\n")
    info = tmp_path / "opt/lib/python3.11/site-packages/flwr-1.42.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flwr\nVersion: 1.42.0\n")
    desk = tmp_path / "desk"
    desk.mkdir(mode=0o770)
    for _ in range(2):  # the server of this test waits for two
        found = asked(capsys, "doctor", "--desk", desk)
    assert [check["name"] for check in found["checks"]] == ["flower", "desk", "key", "server"]
    assert all(check["ok"] for check in found["checks"]), found
